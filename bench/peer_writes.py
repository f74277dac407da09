"""What part "write" measures ours beside: SQL of the other ways to write the same rows."""

# A call a row, as the specification implies it: three inserts that leave alone what is there.
ROW_FUNCTION = """
    CREATE FUNCTION bench_insert_event(
        id TEXT, pubkey TEXT, created_at BIGINT, kind INTEGER, tags JSONB, content TEXT,
        sig TEXT, relay_url TEXT, relay_network TEXT, seen_at BIGINT
    ) RETURNS VOID LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO relays (url, network, inserted_at) VALUES ($8, $9, $10)
        ON CONFLICT DO NOTHING;
        INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING;
        INSERT INTO events_relays (event_id, relay_url, seen_at) VALUES ($1, $8, $10)
        ON CONFLICT DO NOTHING;
    END $$
"""
INSERT_ROW = "SELECT bench_insert_event($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"

# A call a batch, the method of BigBrotr 6.6.9's functions: arrays of all columns, three inserts of
# whole sets, rows in the order in which they came, nothing asked about what is known.
BATCH_FUNCTION = """
    CREATE FUNCTION bench_insert_events(
        ids TEXT[], pubkeys TEXT[], created_ats BIGINT[], kinds INTEGER[], tags JSONB[],
        contents TEXT[], sigs TEXT[], relay_urls TEXT[], relay_networks TEXT[], seen_ats BIGINT[]
    ) RETURNS VOID LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO relays (url, network, inserted_at)
        SELECT * FROM unnest($8, $9, $10) ON CONFLICT DO NOTHING;
        INSERT INTO events (id, pubkey, created_at, kind, tags, content, sig)
        SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING;
        INSERT INTO events_relays (event_id, relay_url, seen_at)
        SELECT DISTINCT ON (id, url) id, url, seen_at
        FROM unnest($1, $8, $10) AS given (id, url, seen_at) ON CONFLICT DO NOTHING;
    END $$
"""
INSERT_BATCH = "SELECT bench_insert_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"

BARE_TABLES = (
    """
    CREATE TABLE bare_events (id TEXT, pubkey TEXT, created_at BIGINT, kind INTEGER, tags JSONB,
        content TEXT, sig TEXT)
    """,
    "CREATE TABLE bare_sightings (event_id TEXT, relay_url TEXT, seen_at BIGINT)",
)
