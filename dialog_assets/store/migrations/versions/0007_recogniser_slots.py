"""The recogniser's streams as slots that all runs share; what the sensor of waiting recordings looks for."""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = """
CREATE TABLE recogniser_slots (
    account text NOT NULL,
    portal text NOT NULL,
    request_key text NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    granted boolean NOT NULL DEFAULT false,
    operation_id text,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ends_at timestamptz NOT NULL,
    PRIMARY KEY (account, portal, request_key)
);
COMMENT ON TABLE recogniser_slots IS
    'who has one of the account''s concurrent streams, and who waits in line for one; shared by all portals and runs';
COMMENT ON COLUMN recogniser_slots.account IS 'hash of the API key, and the method whose quota it is';
COMMENT ON COLUMN recogniser_slots.place IS 'in the line, which is served in this order';
COMMENT ON COLUMN recogniser_slots.operation_id IS 'the operation at the vendor that the slot is held for, once it is known';
COMMENT ON COLUMN recogniser_slots.seen_at IS 'when somebody last looked after the operation';
COMMENT ON COLUMN recogniser_slots.ends_at IS 'after this nobody is believed to hold it any more';

CREATE INDEX call_steps_waiting ON call_steps (portal, step, next_try) WHERE state = 'waiting' AND next_try IS NOT NULL;
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
