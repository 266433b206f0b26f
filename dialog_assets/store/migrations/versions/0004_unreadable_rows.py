"""Rows of a portal that cannot be read, kept until they can."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = """
CREATE TABLE unreadable_rows (
    portal text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('call', 'user', 'contact', 'lead', 'company', 'deal')),
    row_key text NOT NULL,
    row_id bigint,
    method text NOT NULL,
    field text NOT NULL,
    expected text NOT NULL,
    raw jsonb NOT NULL,
    days datemultirange,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, kind, row_key)
) PARTITION BY LIST (portal);
COMMENT ON TABLE unreadable_rows IS
    'rows with no place in a table of their own yet; a call whose ID and start can be read is in calls, failed at step calls';
COMMENT ON COLUMN unreadable_rows.row_key IS 'the row''s ID; where that cannot be read, the sha256 of the row';
COMMENT ON COLUMN unreadable_rows.field IS 'the field that cannot be read; expected says what should be there';
COMMENT ON COLUMN unreadable_rows.days IS 'of a call: the days on one of which it must lie, as far as the readings tell'
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
