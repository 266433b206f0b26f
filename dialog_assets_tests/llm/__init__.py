"""The room of paid answers."""
