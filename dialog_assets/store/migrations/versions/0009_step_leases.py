"""Who works on which step: a lease that is renewed, with a number that every write of the step is checked against."""

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = """
CREATE TABLE step_leases (
    portal text NOT NULL,
    step text NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    released boolean NOT NULL DEFAULT true,
    run_id text NOT NULL DEFAULT '',
    place text NOT NULL DEFAULT '',
    process text NOT NULL DEFAULT '',
    beats bigint NOT NULL DEFAULT 0,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (portal, step)
);
COMMENT ON TABLE step_leases IS 'which run works on which step of a portal, and which did last';
COMMENT ON COLUMN step_leases.fence IS 'one more for each run that takes the step; who has an older number writes nothing more';
COMMENT ON COLUMN step_leases.place IS 'machine, boot and space of process numbers: where `process` means something';
COMMENT ON COLUMN step_leases.process IS 'number and start of the process that works';
COMMENT ON COLUMN step_leases.beats IS 'counted up by the process that works, so that others see that it lives';
COMMENT ON COLUMN step_leases.expires_at IS 'after this nobody is believed to work any more, unless beats go on'
"""


def upgrade() -> None:
    """Add it."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
