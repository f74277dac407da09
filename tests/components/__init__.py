"""The real components that tests run against: PostgreSQL, PgBouncer, relays."""
