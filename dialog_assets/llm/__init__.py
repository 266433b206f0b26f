"""Paid answers from language models: one router over three vendors, prices by date, an answer bought once."""
