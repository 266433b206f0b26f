"""Postgres: the server, the migrations, and the SQL of each table, one module a table. The only room that holds SQL."""
