"""Recordings as files: what is in them, measured by decoding, before money is spent on them."""
