"""What is told of a recognised dialog: marks, the check of its roles, and the rules that it was built by."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = """
ALTER TABLE transcripts
    ADD COLUMN marks text[] NOT NULL DEFAULT '{}',
    ADD COLUMN role_check jsonb,
    ADD COLUMN dialog_rules text;
COMMENT ON COLUMN transcripts.marks IS
    'mono, dual_mono, one_sided, voicemail, roles_disagree, profanity: see speech/dialogs.py';
COMMENT ON COLUMN transcripts.role_check IS
    'verdict, points for and against the roles that the channels give, and the words that they were given for';
COMMENT ON COLUMN transcripts.dialog_rules IS
    'the settings that the dialog was last built or checked by; NULL: a dialog of before they were kept';
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
