-- What is proven archived, what could not be proven, and who works on which relay.

CREATE TABLE IF NOT EXISTS sync_filters (
    filter_hash  TEXT COLLATE "C" PRIMARY KEY
                 CHECK (octet_length(filter_hash) = 64 AND filter_hash !~ '[^0-9a-f]'),
    filter       JSONB NOT NULL CHECK (jsonb_typeof(filter) = 'object')
);
COMMENT ON TABLE sync_filters IS
    'Event filters in use, by the SHA-256 of their canonical JSON without since, until, limit';

-- Ranges are of Unix seconds (created_at) and half-open: [from, to).
CREATE TABLE IF NOT EXISTS sync_coverage (
    relay_url    TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    filter_hash  TEXT COLLATE "C" NOT NULL REFERENCES sync_filters (filter_hash),
    covered      INT8MULTIRANGE NOT NULL DEFAULT '{}'
                 CHECK (NOT lower_inf(covered) AND NOT upper_inf(covered)),
    target       INT8RANGE
                 CHECK (NOT lower_inf(target) AND NOT upper_inf(target)),
    updated_at   BIGINT NOT NULL CHECK (updated_at >= 0),
    verified_at  BIGINT CHECK (verified_at >= 0),
    rounds       INTEGER NOT NULL DEFAULT 0 CHECK (rounds >= 0),
    PRIMARY KEY (relay_url, filter_hash)
);
COMMENT ON TABLE sync_coverage IS 'Per relay and filter, the seconds proven archived';
COMMENT ON COLUMN sync_coverage.covered IS
    'Seconds for which every event that the relay serves is in the archive';
COMMENT ON COLUMN sync_coverage.verified_at IS
    'When proven seconds were last looked at again for events that appeared late';
COMMENT ON COLUMN sync_coverage.rounds IS 'How often that was done';
COMMENT ON COLUMN sync_coverage.target IS
    'Seconds asked for so far: from the earliest start to the latest stop';

CREATE TABLE IF NOT EXISTS sync_gaps (
    relay_url      TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    filter_hash    TEXT COLLATE "C" NOT NULL REFERENCES sync_filters (filter_hash),
    gap            INT8RANGE NOT NULL
                   CHECK (NOT isempty(gap) AND NOT lower_inf(gap) AND NOT upper_inf(gap)),
    reason         TEXT NOT NULL CHECK (reason <> ''),
    detail         TEXT NOT NULL DEFAULT '',
    first_seen_at  BIGINT NOT NULL CHECK (first_seen_at >= 0),
    last_tried_at  BIGINT NOT NULL CHECK (last_tried_at >= 0),
    attempts       INTEGER NOT NULL DEFAULT 1 CHECK (attempts > 0),
    PRIMARY KEY (relay_url, filter_hash, gap, reason)
);
COMMENT ON TABLE sync_gaps IS 'Seconds that could not be proven archived, and why';

CREATE TABLE IF NOT EXISTS relay_tasks (
    purpose           TEXT NOT NULL CHECK (purpose <> ''),
    relay_url         TEXT COLLATE "C" NOT NULL REFERENCES relays (url) ON DELETE CASCADE,
    owner             TEXT,
    lease_expires_at  BIGINT,
    heartbeat_at      BIGINT,
    failures          INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    not_before        BIGINT NOT NULL DEFAULT 0,
    last_outcome      TEXT NOT NULL DEFAULT '',
    learnt            JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(learnt) = 'object'),
    updated_at        BIGINT NOT NULL,
    PRIMARY KEY (purpose, relay_url),
    CHECK ((owner IS NULL) = (lease_expires_at IS NULL))
);
COMMENT ON TABLE relay_tasks IS 'Who works on which relay (a lease), and when it is due again';
COMMENT ON COLUMN relay_tasks.learnt IS
    'How this relay behaves, as seen: used to choose requests, never as proof';

CREATE TABLE IF NOT EXISTS finder_events_read (
    event_id  TEXT COLLATE "C" PRIMARY KEY REFERENCES events (id) ON DELETE CASCADE,
    read_at   BIGINT NOT NULL DEFAULT floor(extract(epoch FROM now()))::bigint
);
COMMENT ON TABLE finder_events_read IS 'Events in which the finder has looked for relays already';

INSERT INTO schema_version (version, name) VALUES (5, 'work_tables') ON CONFLICT DO NOTHING;
