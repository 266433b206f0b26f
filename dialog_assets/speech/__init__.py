"""Speech recognition: the recogniser port, VoiceKit behind it, and the dialog built from what it heard."""
