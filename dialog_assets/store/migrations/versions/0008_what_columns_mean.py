"""Comments of columns that analysts read say where their names are explained, in the portals' own tables too."""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"

COMMENTS = {
    "audio_files": {
        "measures": "measured from the decoded sound, every name is explained in docs/figures.md. "
        "NULL: archived before recordings were measured",
        "marks": "what is odd about the recording: see docs/figures.md; empty: nothing; NULL: not measured",
        "gate": "fingerprint of the thresholds by which marks and a skip were decided. Others decide anew from measures",
    },
    "transcripts": {
        "marks": "what is odd about the dialog: see docs/figures.md",
        "talk_metrics": "figures of the dialog, every name is explained in docs/figures.md",
    },
}


def upgrade() -> None:
    """Renew them; a portal's table copied them when it was made."""
    for table, columns in COMMENTS.items():
        query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:parent)")
        portals = op.get_bind().execute(query, {"parent": table}).scalars()
        for name in [table, *portals]:
            for column, comment in columns.items():
                op.execute(f"COMMENT ON COLUMN {name}.{column} IS '{comment}'")
