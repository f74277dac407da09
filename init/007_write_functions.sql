-- Writing. The batch functions take parallel arrays and write in the order of the keys, so that
-- two writers with the same rows queue up instead of deadlocking. Errors keep their SQLSTATE:
-- the client retries deadlocks (40P01) and looks for the row that a data error (22xxx) is about.
--
-- The plans of a function are kept by a server connection. One made while a table was still
-- small must not go on scanning it when it has grown. So what looks for existing rows, foreign
-- key checks included, may use indexes only, and has just one index to choose; ON CONFLICT
-- always uses the primary key.

CREATE OR REPLACE FUNCTION insert_relays(urls TEXT[], networks TEXT[], inserted_at BIGINT)
RETURNS BIGINT
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    INSERT INTO relays (url, network, inserted_at)
    SELECT given.url, given.network, insert_relays.inserted_at
    FROM unnest(insert_relays.urls, insert_relays.networks) AS given (url, network)
    ORDER BY given.url COLLATE "C"
    ON CONFLICT (url) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_relays(TEXT[], TEXT[], BIGINT) IS
    'Adds relays; returns how many were new. Those known keep their inserted_at';

CREATE OR REPLACE FUNCTION insert_relay(url TEXT, network TEXT, inserted_at BIGINT)
RETURNS BOOLEAN
LANGUAGE sql
AS $$ SELECT insert_relays(ARRAY[$1], ARRAY[$2], $3) = 1 $$;
COMMENT ON FUNCTION insert_relay(TEXT, TEXT, BIGINT) IS 'Adds a relay; true if it was new';

CREATE OR REPLACE FUNCTION insert_events(
    ids TEXT[], pubkeys TEXT[], created_ats BIGINT[], kinds INTEGER[], tags JSONB[],
    contents TEXT[], sigs TEXT[]
) RETURNS BIGINT
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
    SELECT given.*
    FROM unnest(
        insert_events.ids, insert_events.pubkeys, insert_events.created_ats,
        insert_events.kinds, insert_events.tags, insert_events.contents, insert_events.sigs
    ) AS given (id, pubkey, created_at, kind, tags, content, sig)
    WHERE NOT EXISTS (SELECT FROM events WHERE events.id = given.id COLLATE "C")
    ORDER BY given.id COLLATE "C"
    ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_events(TEXT[], TEXT[], BIGINT[], INTEGER[], JSONB[], TEXT[], TEXT[]) IS
    'Adds events; returns how many were new';

CREATE OR REPLACE FUNCTION insert_sightings(ids TEXT[], url TEXT, seen_at BIGINT)
RETURNS BIGINT
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    INSERT INTO events_relays (event_id, relay_url, seen_at)
    SELECT given.id, insert_sightings.url, insert_sightings.seen_at
    FROM unnest(insert_sightings.ids) AS given (id)
    ORDER BY given.id COLLATE "C"
    ON CONFLICT (event_id, relay_url) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_sightings(TEXT[], TEXT, BIGINT) IS
    'Records that a relay holds these archived events; returns how many sightings were new. The '
    'first sighting keeps its time. An event deleted meanwhile breaks the foreign key (23503)';

CREATE OR REPLACE FUNCTION insert_event(
    id TEXT, pubkey TEXT, created_at BIGINT, kind INTEGER, tags JSONB, content TEXT, sig TEXT,
    relay_url TEXT, relay_network TEXT, seen_at BIGINT
) RETURNS BOOLEAN
LANGUAGE plpgsql AS $$
DECLARE
    written BIGINT;
BEGIN
    PERFORM insert_relays(ARRAY[$8], ARRAY[$9], $10);
    written := insert_events(
        ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[$4], ARRAY[$5], ARRAY[$6], ARRAY[$7]
    );
    PERFORM insert_sightings(ARRAY[$1], $8, $10);
    RETURN written = 1;
END
$$;
COMMENT ON FUNCTION insert_event(
    TEXT, TEXT, BIGINT, INTEGER, JSONB, TEXT, TEXT, TEXT, TEXT, BIGINT
) IS 'Adds an event, its relay and the sighting; true if the event was new';

CREATE OR REPLACE FUNCTION insert_raw_events(
    ids TEXT[], raws BYTEA[], reasons TEXT[], url TEXT, seen_at BIGINT
) RETURNS BIGINT
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    INSERT INTO events_raw (id, relay_url, raw, reason, seen_at)
    SELECT given.id, insert_raw_events.url, given.raw, given.reason, insert_raw_events.seen_at
    FROM unnest(insert_raw_events.ids, insert_raw_events.raws, insert_raw_events.reasons)
         AS given (id, raw, reason)
    ORDER BY given.id COLLATE "C"
    ON CONFLICT (id, relay_url) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_raw_events(TEXT[], BYTEA[], TEXT[], TEXT, BIGINT) IS
    'Keeps events that table events cannot hold; returns how many rows were new';

CREATE OR REPLACE FUNCTION insert_raw_sightings(ids TEXT[], url TEXT, seen_at BIGINT)
RETURNS BIGINT
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    INSERT INTO events_raw (id, relay_url, raw, reason, seen_at)
    SELECT DISTINCT ON (known.id)
        known.id, insert_raw_sightings.url, known.raw, known.reason, insert_raw_sightings.seen_at
    FROM unnest(insert_raw_sightings.ids) AS given (id)
    JOIN events_raw AS known ON known.id = given.id COLLATE "C"
    ORDER BY known.id
    ON CONFLICT (id, relay_url) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_raw_sightings(TEXT[], TEXT, BIGINT) IS
    'Records that a relay, too, holds events that are in events_raw; returns how many';

CREATE OR REPLACE FUNCTION insert_relay_metadata_batch(
    urls TEXT[], networks TEXT[], inserted_at BIGINT, generated_ats BIGINT[],
    nip11s JSONB[], nip66s JSONB[]
) RETURNS BIGINT
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    PERFORM insert_relays(
        insert_relay_metadata_batch.urls, insert_relay_metadata_batch.networks,
        insert_relay_metadata_batch.inserted_at
    );
    WITH given AS MATERIALIZED (
        SELECT
            checked.url,
            checked.generated_at,
            CASE WHEN checked.nip11 IS NOT NULL THEN compute_nip11_hash(
                doc.name, doc.description, doc.banner, doc.icon, doc.pubkey, doc.contact,
                doc.supported_nips, doc.software, doc.version, doc.privacy_policy,
                doc.terms_of_service, doc.limitation, doc.extra_fields
            ) END AS nip11_id,
            doc.*,
            CASE WHEN checked.nip66 IS NOT NULL THEN compute_nip66_hash(
                seen.openable, seen.readable, seen.writable,
                seen.rtt_open, seen.rtt_read, seen.rtt_write
            ) END AS nip66_id,
            seen.*
        FROM unnest(
            insert_relay_metadata_batch.urls, insert_relay_metadata_batch.generated_ats,
            insert_relay_metadata_batch.nip11s, insert_relay_metadata_batch.nip66s
        ) AS checked (url, generated_at, nip11, nip66),
        jsonb_to_record(coalesce(checked.nip11, '{}')) AS doc (
            name TEXT, description TEXT, banner TEXT, icon TEXT, pubkey TEXT, contact TEXT,
            supported_nips JSONB, software TEXT, version TEXT, privacy_policy TEXT,
            terms_of_service TEXT, limitation JSONB, extra_fields JSONB
        ),
        jsonb_to_record(coalesce(checked.nip66, '{}')) AS seen (
            openable BOOLEAN, readable BOOLEAN, writable BOOLEAN,
            rtt_open INTEGER, rtt_read INTEGER, rtt_write INTEGER
        )
    ), documents AS (
        INSERT INTO nip11 (
            id, name, description, banner, icon, pubkey, contact, supported_nips, software,
            version, privacy_policy, terms_of_service, limitation, extra_fields
        )
        SELECT DISTINCT ON (nip11_id COLLATE "C")
            nip11_id, name, description, banner, icon, pubkey, contact, supported_nips, software,
            version, privacy_policy, terms_of_service, limitation, extra_fields
        FROM given
        WHERE nip11_id IS NOT NULL
        ORDER BY nip11_id COLLATE "C"
        ON CONFLICT (id) DO NOTHING
    ), results AS (
        INSERT INTO nip66 (id, openable, readable, writable, rtt_open, rtt_read, rtt_write)
        SELECT DISTINCT ON (nip66_id COLLATE "C")
            nip66_id, openable, readable, writable, rtt_open, rtt_read, rtt_write
        FROM given
        WHERE nip66_id IS NOT NULL
        ORDER BY nip66_id COLLATE "C"
        ON CONFLICT (id) DO NOTHING
    )
    INSERT INTO relay_metadata (relay_url, generated_at, nip11_id, nip66_id)
    SELECT url, generated_at, nip11_id, nip66_id
    FROM given
    ORDER BY url COLLATE "C", generated_at
    ON CONFLICT (relay_url, generated_at) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_relay_metadata_batch(
    TEXT[], TEXT[], BIGINT, BIGINT[], JSONB[], JSONB[]
) IS 'Adds checks of relays, the relays, and their deduplicated facts; returns how many were new';

CREATE OR REPLACE FUNCTION insert_relay_metadata(
    url TEXT, network TEXT, inserted_at BIGINT, generated_at BIGINT, nip11 JSONB, nip66 JSONB
) RETURNS BOOLEAN
LANGUAGE sql
AS $$
    SELECT insert_relay_metadata_batch(
        ARRAY[$1], ARRAY[$2], $3, ARRAY[$4], ARRAY[$5], ARRAY[$6]
    ) = 1
$$;
COMMENT ON FUNCTION insert_relay_metadata(TEXT, TEXT, BIGINT, BIGINT, JSONB, JSONB) IS
    'Adds one check of a relay, either part may be NULL; true if it was new';

INSERT INTO schema_version (version, name) VALUES (7, 'write_functions') ON CONFLICT DO NOTHING;
