"""Purchases of recognition that are not heard of know the length of what was asked for."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Take it from the recording that is archived; from here on it is written with the intent."""
    op.execute(
        """
        UPDATE ledger l SET audio_seconds = a.duration_s FROM audio_files a
        WHERE l.step = 'transcripts' AND l.state = 'asked' AND l.audio_seconds IS NULL
            AND a.portal = l.portal AND a.call_id = l.call_id
        """
    )
