"""The tables of design.md section 5."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = """
CREATE TABLE portals (
    portal text PRIMARY KEY,
    title text NOT NULL,
    domain text NOT NULL,
    time_zone text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    portal text NOT NULL,
    user_id bigint NOT NULL,
    found boolean NOT NULL,
    name text,
    email text,
    phone text,
    departments bigint[],
    position text,
    active boolean,
    raw jsonb,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, user_id)
) PARTITION BY LIST (portal);
COMMENT ON COLUMN users.found IS 'false: a call names this user, but user.get does not return it';

CREATE TABLE entities (
    portal text NOT NULL,
    entity_type text NOT NULL CHECK (entity_type IN ('contact', 'lead', 'company', 'deal')),
    entity_id bigint NOT NULL,
    found boolean NOT NULL,
    title text,
    phones text[],
    stage text,
    amount numeric,
    currency text,
    responsible_id bigint,
    raw jsonb,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, entity_type, entity_id)
) PARTITION BY LIST (portal);
COMMENT ON COLUMN entities.found IS 'false: a call names this entity, but the CRM does not return it (deleted or no right)';

CREATE TABLE entity_deals (
    portal text NOT NULL,
    entity_type text NOT NULL CHECK (entity_type IN ('contact', 'lead', 'company')),
    entity_id bigint NOT NULL,
    deal_id bigint NOT NULL,
    PRIMARY KEY (portal, entity_type, entity_id, deal_id)
) PARTITION BY LIST (portal);

CREATE TABLE calls (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    vendor_call_id text,
    started_at timestamptz NOT NULL,
    day date NOT NULL,
    direction text NOT NULL,
    duration_s integer NOT NULL,
    user_id bigint,
    phone text,
    line text,
    failed_code text,
    entity_type text,
    entity_id bigint,
    activity_id bigint,
    record_file_id bigint,
    record_duration_s integer,
    vote integer,
    cost numeric,
    cost_currency text,
    raw jsonb NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id)
) PARTITION BY LIST (portal);
CREATE INDEX calls_by_day ON calls (portal, day, started_at, call_id);
CREATE INDEX calls_by_entity ON calls (portal, entity_type, entity_id);
COMMENT ON COLUMN calls.call_id IS 'ID of voximplant.statistic.get; vendor_call_id is its CALL_ID';
COMMENT ON COLUMN calls.day IS 'day of started_at in the portal''s time zone: the partition';

CREATE TABLE audio_files (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    record_file_id bigint NOT NULL,
    s3_bucket text NOT NULL,
    s3_key text NOT NULL,
    sha256 text NOT NULL,
    bytes bigint NOT NULL,
    container text NOT NULL,
    codec text NOT NULL,
    sample_rate integer NOT NULL,
    channels integer NOT NULL,
    bit_rate integer,
    duration_s numeric NOT NULL,
    peak_dbfs real[] NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id)
) PARTITION BY LIST (portal);

CREATE TABLE transcripts (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    recogniser text NOT NULL,
    operation_id text NOT NULL,
    sha256 text NOT NULL,
    raw jsonb NOT NULL,
    turns jsonb NOT NULL,
    talk_metrics jsonb NOT NULL,
    cost_rub numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id)
) PARTITION BY LIST (portal);

CREATE TABLE fixed_dialogs (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    turns jsonb NOT NULL,
    edits jsonb NOT NULL,
    prompt_version text NOT NULL,
    model text NOT NULL,
    cost_rub numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id)
) PARTITION BY LIST (portal);

CREATE TABLE categories (
    portal text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    criteria text[] NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, name, version)
) PARTITION BY LIST (portal);

CREATE TABLE criteria (
    portal text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    scale_min integer NOT NULL,
    scale_max integer NOT NULL,
    include_in_entity_description boolean NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, name, version)
) PARTITION BY LIST (portal);

CREATE TABLE classifications (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    category text NOT NULL,
    category_version text NOT NULL,
    confidence integer NOT NULL,
    reason text NOT NULL,
    criteria text[] NOT NULL,
    prompt_version text NOT NULL,
    model text NOT NULL,
    cost_rub numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id, category)
) PARTITION BY LIST (portal);
COMMENT ON COLUMN classifications.criteria IS 'the criteria this category selects now, as name@version';

CREATE TABLE criteria_scores (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    criterion text NOT NULL,
    version text NOT NULL,
    dialog_key text NOT NULL,
    applicable boolean NOT NULL,
    score integer,
    text text NOT NULL,
    quotes jsonb NOT NULL,
    prompt_version text NOT NULL,
    model text NOT NULL,
    cost_rub numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id, criterion, version),
    CHECK (applicable = (score IS NOT NULL))
) PARTITION BY LIST (portal);

CREATE TABLE entity_summaries (
    portal text NOT NULL,
    entity_type text NOT NULL,
    entity_id bigint NOT NULL,
    version integer NOT NULL,
    text text NOT NULL,
    average_scores jsonb NOT NULL,
    inputs_hash text NOT NULL,
    calls bigint[] NOT NULL,
    prompt_version text NOT NULL,
    model text NOT NULL,
    cost_rub numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, entity_type, entity_id, version)
) PARTITION BY LIST (portal);

CREATE TABLE call_steps (
    portal text NOT NULL,
    call_id bigint NOT NULL,
    step text NOT NULL,
    state text NOT NULL CHECK (state IN ('done', 'skipped', 'failed', 'waiting')),
    reason text,
    detail text,
    input_key text,
    output_key text,
    attempts integer NOT NULL DEFAULT 0,
    next_try timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, call_id, step),
    CHECK (state = 'done' OR reason IS NOT NULL)
) PARTITION BY LIST (portal);
COMMENT ON COLUMN call_steps.input_key IS 'the upstream step''s output_key that this state was reached from';
COMMENT ON COLUMN call_steps.next_try IS
    'failed and waiting calls: when to try again; NULL on a failed call: not before its input changes';

CREATE SEQUENCE ledger_id;
CREATE TABLE ledger (
    portal text NOT NULL,
    id bigint NOT NULL DEFAULT nextval('ledger_id'),
    request_key text NOT NULL,
    state text NOT NULL CHECK (state IN ('asked', 'answered', 'settled', 'failed')),
    vendor text NOT NULL,
    model text NOT NULL,
    model_returned text,
    step text NOT NULL,
    day date NOT NULL,
    call_id bigint,
    entity_type text,
    entity_id bigint,
    prompt text,
    prompt_version text,
    attempts integer NOT NULL DEFAULT 1,
    vendor_request_id text,
    usage jsonb,
    audio_seconds numeric,
    currency text,
    cost numeric,
    rub_rate numeric,
    cost_rub numeric,
    latency_ms integer,
    answer text,
    failure text,
    asked_at timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    settled_at timestamptz,
    PRIMARY KEY (portal, id)
) PARTITION BY LIST (portal);
ALTER SEQUENCE ledger_id OWNED BY ledger.id;
CREATE UNIQUE INDEX ledger_open_requests ON ledger (portal, request_key) WHERE state <> 'settled';
CREATE INDEX ledger_by_call ON ledger (portal, call_id, step);
CREATE INDEX ledger_by_day ON ledger (portal, day, step);
COMMENT ON COLUMN ledger.day IS 'the call''s day; for an entity the day of its newest call in the run';
COMMENT ON COLUMN ledger.answer IS 'kept from the answer''s arrival until its result is stored, then NULL';
COMMENT ON COLUMN ledger.usage IS 'tokens by kind: input, cache_read, cache_write, cache_write_long, output, reasoning';

CREATE TABLE request_buckets (
    portal text PRIMARY KEY,
    level double precision NOT NULL,
    counted_at timestamptz NOT NULL
);
COMMENT ON TABLE request_buckets IS 'the portal''s leaky bucket of REST requests, shared by all runs';
"""


def upgrade() -> None:
    """Create them."""
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
