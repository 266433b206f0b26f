"""Tokens of OAuth applications; recordings that came another way than from the Disk; a request bucket without a log."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = """
CREATE TABLE oauth_tokens (
    portal text PRIMARY KEY,
    version bigint NOT NULL,
    sealed bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE oauth_tokens IS
    'access and refresh token of a portal''s OAuth application, sealed with DIALOG_ASSETS_SECRET_KEY';
COMMENT ON COLUMN oauth_tokens.version IS 'counts the refreshes';

ALTER TABLE audio_files ALTER COLUMN record_file_id DROP NOT NULL;
ALTER TABLE audio_files ADD COLUMN record_source text NOT NULL DEFAULT 'disk'
    CHECK (record_source IN ('disk', 'activity', 'provider'));
COMMENT ON COLUMN audio_files.record_source IS
    'the way that gave it: disk.file.get, crm.activity.list, CALL_RECORD_URL';

ALTER TABLE request_buckets SET UNLOGGED;
COMMENT ON TABLE request_buckets IS
    'the portal''s leaky bucket of REST requests, shared by all runs; a crash of the server empties it';
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
