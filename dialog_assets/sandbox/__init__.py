"""The outside world in one process: Bitrix24, VoiceKit and its storage, S3, three LLM vendors; as strict as they are."""
