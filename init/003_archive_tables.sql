-- The archive: relays, events, and which relay held which event.
--
-- Ids, public keys and signatures are lower-case hex as in NIP-01. COLLATE "C" makes their
-- indexes compare bytes, and keeps them valid when the system's locale data changes.
-- Times are Unix seconds. (A CHECK with '^[0-9a-f]{64}$' would take fourteen times as long.)

CREATE TABLE IF NOT EXISTS relays (
    url          TEXT COLLATE "C" PRIMARY KEY
                 CHECK (url ~ '^wss?://' AND octet_length(url) <= 2048),
    network      TEXT NOT NULL CHECK (network IN ('clearnet', 'tor')),
    inserted_at  BIGINT NOT NULL CHECK (inserted_at >= 0)
);
COMMENT ON TABLE relays IS 'Every relay known, by canonical URL';

-- What tagvalues holds for one tag. A GIN key cannot be longer than 2,712 bytes, so a long value
-- stands there by its hash; nothing is refused for being long. (Doubling the backslashes makes
-- the cast to bytea yield the bytes of the text itself; convert_to() is not IMMUTABLE. Were it
-- STRICT, it would be called for each tag instead of becoming part of the caller's expression.)
CREATE OR REPLACE FUNCTION tag_key(letter TEXT, value TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN octet_length(value) <= 1000 THEN letter || ':' || value
    ELSE letter || ':sha256:' || encode(sha256(replace(value, '\', '\\')::bytea), 'hex')
END;
COMMENT ON FUNCTION tag_key(TEXT, TEXT) IS
    'Entry of events.tagvalues for a tag letter and value: use it to search for a long value';

-- NIP-01 indexes the first value of tags named by one letter. Tags in the wild may also be
-- empty, lack the value, or hold numbers and null: those give no entry, and no error.
CREATE OR REPLACE FUNCTION tags_to_tagvalues(tags JSONB) RETURNS TEXT[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT coalesce(array_agg(tag_key(tag ->> 0, tag ->> 1)), '{}')
    FROM jsonb_array_elements(
        CASE jsonb_typeof(tags) WHEN 'array' THEN tags ELSE '[]'::jsonb END
    ) AS tag
    WHERE jsonb_typeof(tag -> 0) = 'string'
      AND jsonb_typeof(tag -> 1) = 'string'
      AND (tag ->> 0) ~ '^[a-zA-Z]$'
);

CREATE TABLE IF NOT EXISTS events (
    id          TEXT COLLATE "C" PRIMARY KEY
                CHECK (octet_length(id) = 64 AND id !~ '[^0-9a-f]'),
    pubkey      TEXT COLLATE "C" NOT NULL
                CHECK (octet_length(pubkey) = 64 AND pubkey !~ '[^0-9a-f]'),
    created_at  BIGINT NOT NULL CHECK (created_at >= 0),
    kind        INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 65535),
    tags        JSONB NOT NULL CHECK (jsonb_typeof(tags) = 'array'),
    tagvalues   TEXT[] COLLATE "C" NOT NULL
                GENERATED ALWAYS AS (tags_to_tagvalues(tags)) STORED,
    content     TEXT NOT NULL,
    sig         TEXT COLLATE "C" NOT NULL CHECK (octet_length(sig) = 128 AND sig !~ '[^0-9a-f]')
);
COMMENT ON TABLE events IS 'Events whose id and signature are right, unaltered';
COMMENT ON COLUMN events.tagvalues IS
    'letter:value of the first values of single-letter tags, see tag_key()';

CREATE TABLE IF NOT EXISTS events_relays (
    event_id   TEXT COLLATE "C" NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    relay_url  TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    seen_at    BIGINT NOT NULL CHECK (seen_at >= 0),
    PRIMARY KEY (event_id, relay_url)
);
COMMENT ON TABLE events_relays IS 'Which relay held which event, and when that was first seen';

-- text and jsonb cannot hold everything that a signed event may: no NUL, for one.
CREATE TABLE IF NOT EXISTS events_raw (
    id         TEXT COLLATE "C" NOT NULL CHECK (octet_length(id) = 64 AND id !~ '[^0-9a-f]'),
    relay_url  TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    raw        BYTEA NOT NULL,
    reason     TEXT NOT NULL CHECK (reason <> ''),
    seen_at    BIGINT NOT NULL CHECK (seen_at >= 0),
    PRIMARY KEY (id, relay_url)
);
COMMENT ON TABLE events_raw IS
    'Valid events that text or jsonb cannot hold: their JSON as bytes, a row for each relay';
COMMENT ON COLUMN events_raw.reason IS
    'Why not in events: a word such as nul, or the SQLSTATE with which PostgreSQL refused it';

CREATE TABLE IF NOT EXISTS refused_events (
    relay_url     TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    reason        TEXT NOT NULL CHECK (reason <> ''),
    events        BIGINT NOT NULL CHECK (events > 0),
    last_seen_at  BIGINT NOT NULL CHECK (last_seen_at >= 0),
    PRIMARY KEY (relay_url, reason)
);
COMMENT ON TABLE refused_events IS
    'How many things a relay sent as events that are none: malformed, wrong id or signature';

INSERT INTO schema_version (version, name) VALUES (3, 'archive_tables') ON CONFLICT DO NOTHING;
