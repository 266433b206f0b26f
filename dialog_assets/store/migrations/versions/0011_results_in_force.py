"""Results that lost their input are kept apart; what a result was made from; what a summary is made of, and what it leaves out."""

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"

STATEMENTS = """
CREATE SEQUENCE withdrawn_results_id;
CREATE TABLE withdrawn_results (
    portal text NOT NULL,
    id bigint NOT NULL DEFAULT nextval('withdrawn_results_id'),
    call_id bigint NOT NULL,
    step text NOT NULL,
    result jsonb NOT NULL,
    withdrawn_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, id)
) PARTITION BY LIST (portal);
ALTER SEQUENCE withdrawn_results_id OWNED BY withdrawn_results.id;
CREATE INDEX withdrawn_results_by_call ON withdrawn_results (portal, call_id, step);
COMMENT ON TABLE withdrawn_results IS
    'results whose input went: the recording was replaced, or the text that they were made from is another one now';

ALTER TABLE call_steps ADD COLUMN rules text[];
COMMENT ON COLUMN call_steps.rules IS
    'step classifications: the categories, as name@version, that the dialog was asked about; NULL: not written down';

ALTER TABLE fixed_dialogs ADD COLUMN made_from text, ADD COLUMN refused jsonb NOT NULL DEFAULT '[]';
ALTER TABLE classifications ADD COLUMN made_from text;
UPDATE fixed_dialogs r SET made_from = s.input_key FROM call_steps s
    WHERE s.portal = r.portal AND s.call_id = r.call_id AND s.step = 'fixed_dialogs' AND s.state = 'done';
UPDATE classifications r SET made_from = s.input_key FROM call_steps s
    WHERE s.portal = r.portal AND s.call_id = r.call_id AND s.step = 'classifications' AND s.state = 'done';

ALTER TABLE entity_summaries
    ADD COLUMN average_percent jsonb,
    ADD COLUMN inputs integer,
    ADD COLUMN inputs_left_out integer,
    ADD COLUMN calls_left_out bigint[] NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(text(statement))
