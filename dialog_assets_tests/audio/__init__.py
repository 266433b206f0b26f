"""Tests of dialog_assets.audio."""
