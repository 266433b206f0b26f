"""Dagster resources: they own configuration and lifetime of the clients, nothing else. The only room that reads credentials."""
