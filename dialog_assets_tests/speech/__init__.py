"""Tests of dialog_assets.speech."""
