"""Nightly phone calls of Bitrix24 portals as Dagster assets: archive, recognise, correct, classify, score, summarise."""
