"""Which days have been read, and since when a portal has nights: what tells that a night did not run."""

from alembic import op

revision = "0014"
down_revision = "0013"

STATEMENTS = """
CREATE TABLE read_days (
    portal text NOT NULL,
    day date NOT NULL,
    first_read_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, day)
) PARTITION BY LIST (portal);
COMMENT ON TABLE read_days IS 'the days whose calls have been read whole, those without any call too';
COMMENT ON COLUMN read_days.portal IS 'the portal''s name in its file';
COMMENT ON COLUMN read_days.day IS 'the day, from midnight to midnight where the portal is';
COMMENT ON COLUMN read_days.first_read_at IS 'when that was done first';
COMMENT ON COLUMN read_days.read_at IS 'when that was done last';

ALTER TABLE portals ADD COLUMN nights_from date;
COMMENT ON COLUMN portals.nights_from IS
    'the first day of the first night that the schedule asked for; a day since then that is not in read_days is a missed night';

CREATE INDEX call_steps_open ON call_steps (portal, step, state) WHERE state IN ('failed', 'waiting');
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
