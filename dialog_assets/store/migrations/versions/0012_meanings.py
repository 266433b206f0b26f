"""What every table and column holds, for whoever opens them in a tool; the portals' own tables too."""

from alembic import op
from psycopg import sql
from sqlalchemy import text

revision = "0012"
down_revision = "0011"

TABLES = {
    "users": "employees who are named by calls, as the portal gave them last",
    "entities": "contacts, leads, companies and deals of the calls, as the CRM gave them last",
    "entity_deals": "which deals a contact, lead or company has",
    "calls": "one row a call of the portal's statistics",
    "audio_files": "the archived recording of each call, and what its sound is like",
    "transcripts": "what the recogniser heard in the archived recording",
    "fixed_dialogs": "the dialog after correction by a model",
    "categories": "categories as they were and are configured, one row a wording",
    "criteria": "criteria as they were and are configured, one row a wording",
    "classifications": "the categories that each dialog has",
    "criteria_scores": "scores of each dialog, one row a criterion and wording; those in force are in the view scores",
    "entity_summaries": "summaries of contacts, leads and companies, one row a version; the newest counts",
    "call_steps": "how far each call has come: one row a call and step",
    "ledger": "every request that was paid for, or may have been",
}

SHARED = {
    "portal": "the portal's name in its file",
    "call_id": "ID of the call in the portal's statistics",
    "first_seen_at": "when we saw it first",
    "last_seen_at": "when we saw it last",
    "updated_at": "when we last found it changed",
    "created_at": "when it was stored",
    "prompt_version": "which text of the prompt the model was asked with",
    "model": "the model that answered, by its own name",
    "cost_rub": "what it cost, in roubles: the price, or the share of it, that the ledger has",
    "raw": "the row as the portal gave it",
    "entity_type": "contact, lead, company or deal",
    "entity_id": "its ID in the CRM",
    "id": "number of the row",
}

COLUMNS = {
    "users": {
        "user_id": "ID of the employee in the portal",
        "name": "first and last name",
        "email": "the e-mail address",
        "phone": "the phone number",
        "departments": "IDs of the departments",
        "position": "the position",
        "active": "false: dismissed",
    },
    "entities": {
        "title": "title of the card, or the person's name",
        "phones": "phone numbers of the card",
        "stage": "stage of a lead or deal, by its code in the CRM",
        "amount": "amount of a lead or deal",
        "currency": "currency of the amount",
        "responsible_id": "the employee who is responsible for it",
        "created_at": "when it came into the CRM, by the CRM",
    },
    "entity_deals": {"deal_id": "ID of the deal"},
    "entity_changes": {
        "entity_type": "contact, lead, company, deal or user",
        "before": "what was there",
        "after": "what came",
    },
    "calls": {
        "vendor_call_id": "CALL_ID of the statistics",
        "started_at": "when the call began",
        "direction": "incoming, outgoing and the like",
        "duration_s": "length in seconds, by the portal",
        "user_id": "the employee",
        "phone": "the other side's number",
        "line": "the line that the call went over",
        "failed_code": "the telephony's result code: 200 is a talk",
        "entity_type": "contact, lead or company that the call belongs to",
        "entity_id": "ID of that card in the CRM",
        "activity_id": "ID of the call's activity in the CRM",
        "record_file_id": "ID of the recording on the portal's disk",
        "record_duration_s": "length of the recording, by the portal",
        "vote": "the caller's vote, by the telephony",
        "cost": "what the telephony charged",
        "cost_currency": "currency of that",
    },
    "audio_files": {
        "record_file_id": "ID of the file on the portal's disk; NULL: it came from the telephony's provider",
        "s3_bucket": "bucket in the archive",
        "s3_key": "key in the archive",
        "sha256": "hash of the file",
        "bytes": "size of the file",
        "container": "FFmpeg's name of the file's format",
        "codec": "FFmpeg's name of the sound's format",
        "sample_rate": "samples a second",
        "channels": "1, or 2 where each side has its own",
        "bit_rate": "bits a second",
        "duration_s": "length in seconds, counted",
        "peak_dbfs": "the loudest moment of each channel",
        "archived_at": "when it was archived",
    },
    "transcripts": {
        "recogniser": "who recognised it",
        "operation_id": "the recogniser's own number of the work",
        "sha256": "hash of the recording that was recognised",
        "raw": "the recogniser's answer",
        "turns": "the dialog: role, channel, start_ms, end_ms, text and words of each turn",
    },
    "fixed_dialogs": {
        "turns": "the dialog: role, channel, start_ms, end_ms, text of each turn, and the words as recognised",
        "edits": "the lines that were changed: line, before, after",
        "refused": "what the model answered that could not be used",
        "made_from": "key of the recognised dialog that was corrected",
    },
    "categories": {
        "name": "the name in the portal's file",
        "version": "fingerprint of the wording",
        "title": "the title",
        "description": "the description that the model reads",
        "criteria": "names of the criteria that it selects",
    },
    "criteria": {
        "name": "the name in the portal's file",
        "version": "fingerprint of the wording and the scale",
        "title": "the title",
        "text": "what the model reads",
        "scale_min": "lowest score",
        "scale_max": "highest score",
        "include_in_entity_description": "whether its texts go into the summaries",
    },
    "classifications": {
        "category": "name of the category",
        "category_version": "fingerprint of the wording that the model read",
        "confidence": "how sure the model is, in percent",
        "reason": "why",
        "made_from": "key of the dialog that was classified",
    },
    "criteria_scores": {
        "criterion": "name of the criterion",
        "version": "fingerprint of the wording and scale",
        "dialog_key": "key of the dialog that was scored",
        "applicable": "false: the dialog gave no occasion for the criterion",
        "score": "the score; NULL where it does not apply",
        "text": "why this score",
        "quotes": "the evidence: line, turn from 0, start_ms, text, verbatim",
    },
    "entity_summaries": {
        "version": "number of the version; the highest counts",
        "text": "the summary; empty: nothing is left to summarise",
        "average_scores": "criterion → mean score on the scale of its newest input",
        "average_percent": "criterion → mean score in percent of the scale that each was given by; NULL: of before this was kept",
        "inputs_hash": "fingerprint of all that it could be made of",
        "calls": "the calls that the text is made of",
        "inputs": "how many notes the text is made of; NULL: made before this was counted",
        "inputs_left_out": "how many older notes there was no room for; they count in the averages",
        "calls_left_out": "the calls of which nothing but such notes was left",
    },
    "call_steps": {
        "step": "name of the step, as the asset''s",
        "state": "done, skipped, failed or waiting",
        "reason": "why it is not done",
        "detail": "the reason in a sentence",
        "output_key": "fingerprint of what the step left for the next one",
        "attempts": "how often it was worked on",
        "updated_at": "when the state was last set",
    },
    "unreadable_rows": {
        "kind": "what the row is: call, user, contact, lead, company or deal",
        "row_id": "the row''s ID, where it can be read",
        "method": "the method of the portal that gave it",
        "expected": "what was expected in the field",
    },
    "withdrawn_results": {
        "step": "the step whose result it was",
        "result": "the row as it stood in the step''s table",
        "withdrawn_at": "when it was withdrawn",
    },
    "ledger": {
        "request_key": "fingerprint of the request; the same question has the same key",
        "state": "asked, answered, settled or failed",
        "vendor": "who was asked",
        "model": "the model that was asked for, or the way of recognition",
        "model_returned": "the model that answered, by its own name",
        "step": "name of the step that asked",
        "call_id": "the call that it was about, if it was about one",
        "entity_type": "the card that it was about: contact, lead or company",
        "prompt": "name of the prompt",
        "attempts": "how often it was sent",
        "vendor_request_id": "the vendor''s own number",
        "audio_seconds": "seconds of recognised sound that are charged",
        "currency": "currency of the price",
        "cost": "the price",
        "rub_rate": "roubles for one unit of the currency",
        "latency_ms": "how long the answer took",
        "failure": "why nothing came of it",
        "asked_at": "when it was sent last",
        "answered_at": "when the answer came",
        "settled_at": "when the result was stored",
    },
}


def upgrade() -> None:
    """Say it where nothing is said yet; a portal's table copied its parent's comments when it was made."""
    connection = op.get_bind()
    bare = text(
        """
        SELECT i.relname AS name, a.attname AS column FROM pg_class c
        JOIN LATERAL (SELECT c.oid UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid) t (oid) ON true
        JOIN pg_class i ON i.oid = t.oid
        JOIN pg_attribute a ON a.attrelid = i.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.oid = to_regclass(:parent) AND col_description(i.oid, a.attnum) IS NULL
        """
    )
    for table in [*TABLES, *(table for table in COLUMNS if table not in TABLES)]:
        known = {**SHARED, **COLUMNS.get(table, {})}
        if table in TABLES:
            op.execute(text(f'COMMENT ON TABLE "{table}" IS {_quoted(TABLES[table])}'))
        for row in connection.execute(bare, {"parent": table}).mappings().all():
            if row["column"] in known:
                meaning = _quoted(known[row["column"]])
                op.execute(text(f'COMMENT ON COLUMN "{row["name"]}"."{row["column"]}" IS {meaning}'))


def _quoted(meaning: str) -> str:
    return sql.Literal(meaning.replace("''", "'")).as_string().replace(":", "\\:")
