"""What changed about a contact, lead, company, deal or employee, and when; the times that the CRM itself gives."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = """
ALTER TABLE entities
    ADD COLUMN category text,
    ADD COLUMN created_at timestamptz,
    ADD COLUMN modified_at timestamptz,
    ADD COLUMN moved_at timestamptz,
    ADD COLUMN first_seen_at timestamptz;
UPDATE entities SET
    first_seen_at = updated_at,
    category = CASE WHEN entity_type = 'deal' THEN nullif(coalesce(raw ->> 'CATEGORY_ID', raw ->> 'categoryId'), '') END;
ALTER TABLE entities ALTER COLUMN first_seen_at SET DEFAULT now(), ALTER COLUMN first_seen_at SET NOT NULL;
COMMENT ON COLUMN entities.category IS 'of a deal: the pipeline that its stage belongs to';
COMMENT ON COLUMN entities.modified_at IS 'the CRM''s DATE_MODIFY';
COMMENT ON COLUMN entities.moved_at IS 'the CRM''s MOVED_TIME, when the stage was last changed, where the portal gives it';

CREATE SEQUENCE entity_changes_id;
CREATE TABLE entity_changes (
    portal text NOT NULL,
    id bigint NOT NULL DEFAULT nextval('entity_changes_id'),
    entity_type text NOT NULL CHECK (entity_type IN ('contact', 'lead', 'company', 'deal', 'user')),
    entity_id bigint NOT NULL,
    field text NOT NULL,
    before text,
    after text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    modified_at timestamptz,
    PRIMARY KEY (portal, id),
    CHECK (before IS DISTINCT FROM after)
) PARTITION BY LIST (portal);
ALTER SEQUENCE entity_changes_id OWNED BY entity_changes.id;
CREATE INDEX entity_changes_by_entity ON entity_changes (portal, entity_type, entity_id, field, id);
CREATE INDEX entity_changes_of_calls ON entity_changes (portal, before) WHERE field = 'call';
COMMENT ON TABLE entity_changes IS 'one row a field that was found changed; what was there at first sight is in entities and users';
COMMENT ON COLUMN entity_changes.field IS
    'stage, category, amount, currency, responsible_id, title, found, or of a user active, name, position, departments,
     or deal, call: whose id came (after) or went (before)';
COMMENT ON COLUMN entity_changes.changed_at IS 'when we saw it';
COMMENT ON COLUMN entity_changes.modified_at IS
    'when the CRM says that the entity was modified: for stage and category MOVED_TIME if given, else DATE_MODIFY';

CREATE FUNCTION entity_value_at(of_portal text, of_type text, of_id bigint, of_field text, now_is text, at timestamptz)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN seen.known THEN seen.value
        WHEN later.known THEN later.value
        ELSE now_is END
    FROM (SELECT) AS one
    LEFT JOIN LATERAL (
        SELECT true AS known, after AS value FROM entity_changes
        WHERE portal = of_portal AND entity_type = of_type AND entity_id = of_id AND field = of_field
            AND least(changed_at, modified_at) <= at
        ORDER BY id DESC LIMIT 1
    ) seen ON true
    LEFT JOIN LATERAL (
        SELECT true AS known, before AS value FROM entity_changes
        WHERE portal = of_portal AND entity_type = of_type AND entity_id = of_id AND field = of_field
        ORDER BY id LIMIT 1
    ) later ON true
$$;
COMMENT ON FUNCTION entity_value_at IS
    'the value of a field at a moment: what the last change before it left, else what the first change after it found, else now_is';
"""


def upgrade() -> None:
    """Add them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
