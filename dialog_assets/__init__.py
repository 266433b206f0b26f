"""Nightly phone calls of Bitrix24 portals as partitioned Dagster assets: archive, recognise, correct, classify, score, summarise."""
