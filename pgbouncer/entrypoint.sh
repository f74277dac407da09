#!/bin/sh
# Writes what depends on the environment into /run/pgbouncer (a tmpfs), then starts PgBouncer.
# The two passwords may also come from files: PGBOUNCER_AUTH_PASSWORD_FILE,
# PGBOUNCER_ADMIN_PASSWORD_FILE.
set -eu
umask 077
run=/run/pgbouncer

fail() {
    echo "pgbouncer: $1" >&2
    exit 2
}

# secret NAME: its value, or that of the file that NAME_FILE names
secret() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$file" ]; then
        [ -z "$value" ] || fail "$1 and $1_FILE are both set: remove one of them"
        value=$(cat "$file") || fail "$1_FILE: cannot read '$file': name a readable file"
    fi
    case $value in
        '') fail "$1 is empty: set it in .env" ;;
        *[Cc][Hh][Aa][Nn][Gg][Ee]_[Mm][Ee]*) fail "$1 still has the placeholder: set it in .env" ;;
    esac
    printf %s "$value"
}

quoted() {
    printf '"%s"' "$(printf %s "$1" | sed 's/"/""/g')"
}

[ -w "$run" ] || fail "$run is not writable: mount a tmpfs there that user 1000 owns"
auth_password=$(secret PGBOUNCER_AUTH_PASSWORD)
admin_password=$(secret PGBOUNCER_ADMIN_PASSWORD)
database=${POSTGRES_DB:-bigbrotr}
host=${POSTGRES_HOST:-database}
port=${POSTGRES_PORT:-5432}

{
    printf '%s %s\n' "$(quoted pgbouncer_auth)" "$(quoted "$auth_password")"
    printf '%s %s\n' "$(quoted pgbouncer_admin)" "$(quoted "$admin_password")"
} >"$run/userlist.txt"

cat >"$run/databases.ini" <<INI
[databases]
$database = host=$host port=$port dbname=$database auth_user=pgbouncer_auth
INI

# For the health check: in a password file ":" and "\" are written with a "\" before them.
escaped=$(printf %s "$auth_password" | sed 's/[\\:]/\\&/g')
printf '%s\n' "127.0.0.1:6432:$database:pgbouncer_auth:$escaped" >"$run/pgpass"
printf %s "$database" >"$run/database"

exec env -u PGBOUNCER_AUTH_PASSWORD -u PGBOUNCER_ADMIN_PASSWORD "$@"
