"""Dialogs into corrected text, categories, scores and summaries: text in, values out, no network."""
