"""Tests of the store: real Postgres, no mocks."""
