"""The ledger says which costs are estimates, and which fruitless purchases no longer count, as a person wants another try."""

from alembic import op

revision = "0013"
down_revision = "0012"

STATEMENTS = """
ALTER TABLE ledger
    ADD COLUMN estimated boolean NOT NULL DEFAULT false,
    ADD COLUMN pardoned boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ledger.estimated IS
    'the cost is an estimate: no answer came and it may be on the bill, or the answer did not tell its tokens';
COMMENT ON COLUMN ledger.pardoned IS
    'does not count towards the ceiling of its call or entity: a person has asked for another try since';
COMMENT ON COLUMN ledger.failure IS
    'why nothing came of it; in a settled row of a language model: it was paid, or may have been (estimated), in vain';
CREATE INDEX ledger_by_entity ON ledger (portal, entity_type, entity_id, step) WHERE entity_id IS NOT NULL;
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
