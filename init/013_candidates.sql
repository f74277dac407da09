-- Relay URLs that somebody named and that have not answered yet: candidates. The monitor checks
-- them like relays; the first answer makes one a relay. Nothing archived can refer to a candidate.

CREATE TABLE IF NOT EXISTS relay_candidates (
    url       TEXT COLLATE "C" PRIMARY KEY
              CHECK (url ~ '^wss?://' AND octet_length(url) <= 2048),
    network   TEXT NOT NULL CHECK (network IN ('clearnet', 'tor')),
    found_by  TEXT NOT NULL CHECK (found_by <> ''),
    found_at  BIGINT NOT NULL CHECK (found_at >= 0)
);
COMMENT ON TABLE relay_candidates IS 'Relay URLs that were named and have not answered yet';
COMMENT ON COLUMN relay_candidates.found_by IS
    'Who named it first: an author''s public key, or the URL of an aggregator or relay';

-- Of relays and candidates alike, so without a foreign key; see forget_relays().
CREATE TABLE IF NOT EXISTS relay_sources (
    relay_url       TEXT COLLATE "C" NOT NULL,
    source          TEXT NOT NULL CHECK (source <> ''),
    name            TEXT NOT NULL,
    first_seen_at   BIGINT NOT NULL CHECK (first_seen_at >= 0),
    last_seen_at    BIGINT NOT NULL CHECK (last_seen_at >= first_seen_at),
    times           BIGINT NOT NULL CHECK (times > 0),
    first_event_id  TEXT COLLATE "C",
    PRIMARY KEY (relay_url, source, name)
);
COMMENT ON TABLE relay_sources IS 'Where relays and candidates were named, since when, how often';
COMMENT ON COLUMN relay_sources.source IS
    'event (name: its kind), hint (name: the tag), aggregator, nip66 (name: the URL asked) or list';
COMMENT ON COLUMN relay_sources.times IS
    'By how many events, or by how many answers of the aggregator or relay';
COMMENT ON COLUMN relay_sources.first_event_id IS
    'The event that named it first, for source event and hint';

-- How far the finder has read the sightings of a relay, in the order of seen_at and event id.
CREATE TABLE IF NOT EXISTS finder_positions (
    relay_url  TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    stream     TEXT NOT NULL CHECK (stream IN ('hints', 'raw')),
    seen_at    BIGINT NOT NULL CHECK (seen_at >= 0),
    event_id   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (relay_url, stream)
);
COMMENT ON TABLE finder_positions IS
    'Up to which sighting of a relay the finder has looked for hints, or into events_raw';

-- Candidates have tasks, too.
ALTER TABLE relay_tasks DROP CONSTRAINT IF EXISTS relay_tasks_relay_url_fkey;

CREATE OR REPLACE FUNCTION forget_relays() RETURNS TRIGGER
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM relay_tasks USING gone
    WHERE relay_tasks.relay_url = gone.url
      AND NOT EXISTS (SELECT FROM relays WHERE relays.url = gone.url)
      AND NOT EXISTS (SELECT FROM relay_candidates WHERE relay_candidates.url = gone.url);
    DELETE FROM relay_sources USING gone
    WHERE relay_sources.relay_url = gone.url
      AND NOT EXISTS (SELECT FROM relays WHERE relays.url = gone.url)
      AND NOT EXISTS (SELECT FROM relay_candidates WHERE relay_candidates.url = gone.url);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION forget_relays() IS
    'Removes tasks and sources of URLs that are neither relays nor candidates any more';

CREATE OR REPLACE TRIGGER forget_relays AFTER DELETE ON relays
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_relays();
CREATE OR REPLACE TRIGGER forget_relays AFTER DELETE ON relay_candidates
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_relays();

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
    IF written > 0 THEN
        DELETE FROM relay_candidates WHERE url = ANY (insert_relays.urls);
    END IF;
    RETURN written;
END
$$;
COMMENT ON FUNCTION insert_relays(TEXT[], TEXT[], BIGINT) IS
    'Adds relays, which are no candidates then; returns how many were new. Those known keep '
    'their inserted_at';

REVOKE ALL ON FUNCTION forget_relays() FROM PUBLIC;
GRANT SELECT ON relay_candidates, relay_sources, finder_positions
TO bigbrotr_reader, bigbrotr_writer;
GRANT INSERT, UPDATE, DELETE ON relay_candidates, relay_sources, finder_positions
TO bigbrotr_writer;

INSERT INTO schema_version (version, name) VALUES (13, 'candidates') ON CONFLICT DO NOTHING;
