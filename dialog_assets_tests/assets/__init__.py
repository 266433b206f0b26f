"""Tests of the Dagster layer: its pure functions, and steps without Dagster."""
