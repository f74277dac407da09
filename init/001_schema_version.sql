-- One row for each file of this directory that was applied to this database.
--
-- The files run in two ways: by the migration runner (src/migrate.py), and by the PostgreSQL
-- image's init directory on an empty volume. Each file records itself, so both ways leave the
-- same rows; the checksum is filled in by the runner, at once or when it next starts.
-- Every file can run twice: an interrupted init leaves a half-made volume behind, which the
-- runner completes. A file that was released is never edited; changes go into a new one.

CREATE TABLE IF NOT EXISTS schema_version (
    version     INTEGER PRIMARY KEY CHECK (version > 0),
    name        TEXT NOT NULL,
    checksum    TEXT CHECK (octet_length(checksum) = 64 AND checksum !~ '[^0-9a-f]'),
    applied_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_version IS 'Files of init/ applied to this database';
COMMENT ON COLUMN schema_version.checksum IS
    'SHA-256 of the file; NULL until the migration runner has seen a file applied by psql';

INSERT INTO schema_version (version, name) VALUES (1, 'schema_version') ON CONFLICT DO NOTHING;
