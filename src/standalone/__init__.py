"""The suite without Docker: the same services as processes on an embedded PostgreSQL."""
