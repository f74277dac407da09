-- The fifteen secondary indexes. None is a prefix of another one or of a primary key.

-- An author's events, newest first; the newest events; the newest events of a kind; by tag.
CREATE INDEX IF NOT EXISTS idx_events_pubkey ON events (pubkey, created_at DESC);
CREATE INDEX IF NOT EXISTS idx_events_created_at ON events (created_at DESC);
CREATE INDEX IF NOT EXISTS idx_events_kind_created_at ON events (kind, created_at DESC);
CREATE INDEX IF NOT EXISTS idx_events_tagvalues ON events USING gin (tagvalues);

-- What a relay held, last seen first. These also serve the cascades from relays.
CREATE INDEX IF NOT EXISTS idx_events_relays_relay_seen ON events_relays (relay_url, seen_at DESC);
CREATE INDEX IF NOT EXISTS idx_events_raw_relay_seen ON events_raw (relay_url, seen_at DESC);
CREATE INDEX IF NOT EXISTS idx_relays_network ON relays (network, inserted_at DESC);

-- The latest checks; and which checks refer to a document or a result.
CREATE INDEX IF NOT EXISTS idx_relay_metadata_generated_at ON relay_metadata (generated_at DESC);
CREATE INDEX IF NOT EXISTS idx_relay_metadata_nip11 ON relay_metadata (nip11_id);
CREATE INDEX IF NOT EXISTS idx_relay_metadata_nip66 ON relay_metadata (nip66_id);

-- Progress by filter; gaps to try again, longest untried first.
CREATE INDEX IF NOT EXISTS idx_sync_coverage_filter ON sync_coverage (filter_hash);
CREATE INDEX IF NOT EXISTS idx_sync_gaps_last_tried ON sync_gaps (last_tried_at);

-- Work that is due; a relay's tasks; the leases of one process.
CREATE INDEX IF NOT EXISTS idx_relay_tasks_due ON relay_tasks (purpose, not_before);
CREATE INDEX IF NOT EXISTS idx_relay_tasks_relay ON relay_tasks (relay_url);
CREATE INDEX IF NOT EXISTS idx_relay_tasks_owner ON relay_tasks (owner) WHERE owner IS NOT NULL;

INSERT INTO schema_version (version, name) VALUES (6, 'indexes') ON CONFLICT DO NOTHING;
