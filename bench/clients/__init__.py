"""One client each, as a process of its own: what is measured is the client, not the harness. Run by bench.bitrix24."""
