-- What the monitor found of a relay beyond the columns of nip66, as stretches of time in which it
-- stayed the same: most checks find what the last one found, and only prolong the last stretch.

CREATE TABLE IF NOT EXISTS relay_facts (
    relay_url         TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    first_checked_at  BIGINT NOT NULL CHECK (first_checked_at >= 0),
    last_checked_at   BIGINT NOT NULL CHECK (last_checked_at >= first_checked_at),
    checks            INTEGER NOT NULL DEFAULT 1 CHECK (checks > 0),
    outcome           TEXT NOT NULL CHECK (outcome <> ''),
    openable          BOOLEAN NOT NULL,
    readable          BOOLEAN NOT NULL,
    writable          BOOLEAN NOT NULL,
    write_outcome     TEXT NOT NULL DEFAULT '',
    document_outcome  TEXT NOT NULL DEFAULT '',
    scheme            TEXT NOT NULL DEFAULT '' CHECK (scheme IN ('', 'ws', 'wss')),
    auth_required     BOOLEAN,
    payment_required  BOOLEAN,
    pow_difficulty    INTEGER CHECK (pow_difficulty > 0),
    ipv4              BOOLEAN,
    ipv6              BOOLEAN,
    tls_version       TEXT,
    tls_issuer        TEXT,
    tls_expires_at    BIGINT CHECK (tls_expires_at >= 0),
    PRIMARY KEY (relay_url, first_checked_at)
) WITH (fillfactor = 90);  -- room on the page for the next check of the same row
COMMENT ON TABLE relay_facts IS
    'Stretches of time in which every check of a relay found the same; round-trip times are in nip66';
COMMENT ON COLUMN relay_facts.outcome IS 'ok if it could be read, else why not: docs/monitor.md';
COMMENT ON COLUMN relay_facts.write_outcome IS 'ok, or why not; empty if writing was not tested';
COMMENT ON COLUMN relay_facts.document_outcome IS
    'ok, or why there is no NIP-11 document; empty if it was not asked for';
COMMENT ON COLUMN relay_facts.scheme IS 'How it was opened: wss, or ws in the clear';
COMMENT ON COLUMN relay_facts.auth_required IS
    'Whether it had us sign in (NIP-42) to read or write; NULL if that was not seen';
COMMENT ON COLUMN relay_facts.payment_required IS
    'True if it refused us for not paying, false if it let us write';
COMMENT ON COLUMN relay_facts.pow_difficulty IS
    'Proof of work that it asked for to write, in bits (NIP-13)';
COMMENT ON COLUMN relay_facts.ipv4 IS 'Whether its name leads to IPv4 addresses; NULL through Tor';
COMMENT ON COLUMN relay_facts.tls_expires_at IS 'When its certificate runs out (Unix seconds)';

CREATE OR REPLACE FUNCTION record_relay_facts(urls TEXT[], checked_ats BIGINT[], facts JSONB[])
RETURNS BIGINT
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    written BIGINT;
BEGIN
    WITH given AS MATERIALIZED (
        SELECT checked.url, checked.checked_at, seen.*
        FROM unnest(
            record_relay_facts.urls, record_relay_facts.checked_ats, record_relay_facts.facts
        ) AS checked (url, checked_at, facts),
        jsonb_to_record(checked.facts) AS seen (
            outcome TEXT, openable BOOLEAN, readable BOOLEAN, writable BOOLEAN,
            write_outcome TEXT, document_outcome TEXT, scheme TEXT,
            auth_required BOOLEAN, payment_required BOOLEAN, pow_difficulty INTEGER,
            ipv4 BOOLEAN, ipv6 BOOLEAN, tls_version TEXT, tls_issuer TEXT, tls_expires_at BIGINT
        )
    ), latest AS MATERIALIZED (
        SELECT
            given.url,
            known.first_checked_at,
            given.checked_at > known.last_checked_at AS newer,
            (known.outcome, known.openable, known.readable, known.writable,
             known.write_outcome, known.document_outcome, known.scheme,
             known.auth_required, known.payment_required, known.pow_difficulty,
             known.ipv4, known.ipv6, known.tls_version, known.tls_issuer, known.tls_expires_at)
            IS NOT DISTINCT FROM
            (given.outcome, given.openable, given.readable, given.writable,
             given.write_outcome, given.document_outcome, given.scheme,
             given.auth_required, given.payment_required, given.pow_difficulty,
             given.ipv4, given.ipv6, given.tls_version, given.tls_issuer, given.tls_expires_at)
            AS same
        FROM given
        CROSS JOIN LATERAL (
            SELECT *
            FROM relay_facts
            WHERE relay_facts.relay_url = given.url COLLATE "C"
            ORDER BY relay_facts.first_checked_at DESC
            LIMIT 1
        ) AS known
    ), prolonged AS (
        UPDATE relay_facts
        SET last_checked_at = given.checked_at, checks = relay_facts.checks + 1
        FROM given
        JOIN latest ON latest.url = given.url
        WHERE latest.newer AND latest.same
          AND relay_facts.relay_url = given.url COLLATE "C"
          AND relay_facts.first_checked_at = latest.first_checked_at
    )
    INSERT INTO relay_facts (
        relay_url, first_checked_at, last_checked_at, outcome, openable, readable, writable,
        write_outcome, document_outcome, scheme, auth_required, payment_required,
        pow_difficulty, ipv4, ipv6, tls_version, tls_issuer, tls_expires_at
    )
    SELECT
        given.url, given.checked_at, given.checked_at, outcome, openable, readable, writable,
        write_outcome, document_outcome, scheme, auth_required, payment_required,
        pow_difficulty, ipv4, ipv6, tls_version, tls_issuer, tls_expires_at
    FROM given
    LEFT JOIN latest ON latest.url = given.url
    WHERE (latest.url IS NULL OR (latest.newer AND NOT latest.same))
      AND EXISTS (SELECT FROM relays WHERE relays.url = given.url COLLATE "C")
    ORDER BY given.url COLLATE "C"
    ON CONFLICT (relay_url, first_checked_at) DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$$;
COMMENT ON FUNCTION record_relay_facts(TEXT[], BIGINT[], JSONB[]) IS
    'Records what checks found, each relay once: the last stretch is prolonged, or a new one '
    'begins. Returns how many began. A check older than the latest known changes nothing, nor does one of an unknown relay';

REVOKE ALL ON FUNCTION record_relay_facts(TEXT[], BIGINT[], JSONB[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_relay_facts(TEXT[], BIGINT[], JSONB[]) TO bigbrotr_writer;
GRANT SELECT ON relay_facts TO bigbrotr_reader, bigbrotr_writer;
GRANT INSERT, UPDATE, DELETE ON relay_facts TO bigbrotr_writer;

INSERT INTO schema_version (version, name) VALUES (15, 'relay_facts') ON CONFLICT DO NOTHING;
