"""The Dagster layer, thin: one module a step, the factory around them, jobs and schedules."""
