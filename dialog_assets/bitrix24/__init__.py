"""The Bitrix24 REST client: transport, pacing, paging, rows, record downloads. Knows nothing of Dagster, Postgres or S3."""
