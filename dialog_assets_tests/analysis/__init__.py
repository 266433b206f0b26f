"""The room of analysis."""
