-- What relays say of themselves (NIP-11) and what checking them showed (NIP-66).
--
-- Most checks find what the last one found, so both kinds of facts are stored once, under the
-- hash of their content, and relay_metadata only refers to them.

CREATE OR REPLACE FUNCTION compute_nip11_hash(
    name TEXT, description TEXT, banner TEXT, icon TEXT, pubkey TEXT, contact TEXT,
    supported_nips JSONB, software TEXT, version TEXT, privacy_policy TEXT,
    terms_of_service TEXT, limitation JSONB, extra_fields JSONB
) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(jsonb_build_object(
    'name', name, 'description', description, 'banner', banner, 'icon', icon,
    'pubkey', pubkey, 'contact', contact, 'supported_nips', supported_nips,
    'software', software, 'version', version, 'privacy_policy', privacy_policy,
    'terms_of_service', terms_of_service, 'limitation', limitation,
    'extra_fields', extra_fields
)::text, 'UTF8')), 'hex');

CREATE OR REPLACE FUNCTION compute_nip66_hash(
    openable BOOLEAN, readable BOOLEAN, writable BOOLEAN,
    rtt_open INTEGER, rtt_read INTEGER, rtt_write INTEGER
) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(jsonb_build_object(
    'openable', openable, 'readable', readable, 'writable', writable,
    'rtt_open', rtt_open, 'rtt_read', rtt_read, 'rtt_write', rtt_write
)::text, 'UTF8')), 'hex');

CREATE TABLE IF NOT EXISTS nip11 (
    id                TEXT COLLATE "C" PRIMARY KEY
                      CHECK (octet_length(id) = 64 AND id !~ '[^0-9a-f]'),
    name              TEXT,
    description       TEXT,
    banner            TEXT,
    icon              TEXT,
    pubkey            TEXT,
    contact           TEXT,
    supported_nips    JSONB,
    software          TEXT,
    version           TEXT,
    privacy_policy    TEXT,
    terms_of_service  TEXT,
    limitation        JSONB,
    extra_fields      JSONB
);
COMMENT ON TABLE nip11 IS 'Relay information documents (NIP-11), each distinct one once';
COMMENT ON COLUMN nip11.extra_fields IS
    'Fields without a column of their own; _original_json is the document as JSON text when '
    'PostgreSQL cannot hold it as it is (NUL, lone surrogates)';

CREATE TABLE IF NOT EXISTS nip66 (
    id         TEXT COLLATE "C" PRIMARY KEY
               CHECK (octet_length(id) = 64 AND id !~ '[^0-9a-f]'),
    openable   BOOLEAN NOT NULL,
    readable   BOOLEAN NOT NULL,
    writable   BOOLEAN NOT NULL,
    rtt_open   INTEGER CHECK (rtt_open >= 0),
    rtt_read   INTEGER CHECK (rtt_read >= 0),
    rtt_write  INTEGER CHECK (rtt_write >= 0)
);
COMMENT ON TABLE nip66 IS 'Results of checks (NIP-66), each distinct one once; RTT in milliseconds';

CREATE TABLE IF NOT EXISTS relay_metadata (
    relay_url     TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    generated_at  BIGINT NOT NULL CHECK (generated_at >= 0),
    nip11_id      TEXT COLLATE "C" REFERENCES nip11 (id),
    nip66_id      TEXT COLLATE "C" REFERENCES nip66 (id),
    PRIMARY KEY (relay_url, generated_at)
);
COMMENT ON TABLE relay_metadata IS 'One row for each check of a relay';

INSERT INTO schema_version (version, name) VALUES (4, 'metadata_tables') ON CONFLICT DO NOTHING;
