"""The outside world in one process: Bitrix24, VoiceKit and its storage, S3 and three LLM vendors, as strict as the facts say they are."""
