"""What must never be seen."""
