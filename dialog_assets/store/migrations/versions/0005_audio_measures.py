"""What a recording sounds like, and what the gate before recognition made of it."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = """
ALTER TABLE audio_files
    ADD COLUMN measures jsonb,
    ADD COLUMN marks text[],
    ADD COLUMN gate text;
COMMENT ON COLUMN audio_files.measures IS
    'measured from the decoded sound: per channel speech, levels, clipping, tones; of both correlation, crosstalk, pauses.
     NULL: archived before recordings were measured';
COMMENT ON COLUMN audio_files.marks IS
    'what is odd about the recording: mono, dual_mono, dead_channel_0, crosstalk …; empty: nothing; NULL: not measured';
COMMENT ON COLUMN audio_files.gate IS 'the thresholds by which marks and a skip were decided. Others decide anew from measures'
"""


def upgrade() -> None:
    """Add the columns; rows that are there keep NULL."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
