-- An imported event may come without a relay. In events that is a row without a sighting; in
-- events_raw, a row whose relay_url is NULL.

ALTER TABLE events_raw DROP CONSTRAINT IF EXISTS events_raw_pkey;
ALTER TABLE events_raw ALTER COLUMN relay_url DROP NOT NULL;
ALTER TABLE events_raw DROP CONSTRAINT IF EXISTS events_raw_id_relay;
ALTER TABLE events_raw
    ADD CONSTRAINT events_raw_id_relay UNIQUE NULLS NOT DISTINCT (id, relay_url);
COMMENT ON COLUMN events_raw.relay_url IS
    'A relay that holds the event; NULL when it was imported and no relay was named';

INSERT INTO schema_version (version, name)
VALUES (12, 'raw_without_relay') ON CONFLICT DO NOTHING;
