"""The whole graph on the sandbox's world: through the real Dagster job, and through the commands."""
