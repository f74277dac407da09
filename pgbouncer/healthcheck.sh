#!/bin/sh
# A query through PgBouncer to the database: the way that every service goes.
set -eu
export PGPASSFILE=/run/pgbouncer/pgpass PGCONNECT_TIMEOUT=5
answer=$(psql -h 127.0.0.1 -p 6432 -U pgbouncer_auth -d "$(cat /run/pgbouncer/database)" \
    --no-psqlrc --no-password -qtAc 'SELECT 1')
[ "$answer" = 1 ]
