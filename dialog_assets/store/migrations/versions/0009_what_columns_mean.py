"""Comments of columns that analysts read say where their names are explained."""

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = """
COMMENT ON COLUMN audio_files.measures IS
    'measured from the decoded sound, every name is explained in docs/figures.md. NULL: archived before recordings were measured';
COMMENT ON COLUMN audio_files.marks IS
    'what is odd about the recording: see docs/figures.md; empty: nothing; NULL: not measured';
COMMENT ON COLUMN audio_files.gate IS
    'fingerprint of the thresholds by which marks and a skip were decided. Others decide anew from measures';
COMMENT ON COLUMN transcripts.marks IS 'what is odd about the dialog: see docs/figures.md';
COMMENT ON COLUMN transcripts.talk_metrics IS 'figures of the dialog, every name is explained in docs/figures.md'
"""


def upgrade() -> None:
    """Renew them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
