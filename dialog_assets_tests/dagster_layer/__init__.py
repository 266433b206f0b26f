"""What Dagster sees: the definitions, the schedules, and ranges of days through a real daemon."""
