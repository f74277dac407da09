#!/bin/sh
# `make env`: env.example as .env, with random passwords and a new Nostr keypair. With the argument
# "secrets" these go into files of ./secrets, for docker-compose.secrets.yml; in .env the passwords
# stay the placeholder, with which nothing starts unless that file replaces it.
# Needs openssl and nothing of BigBrotr: a server with Docker may have no Python.
set -eu
umask 077

fail() {
    echo "env: $1" >&2
    exit 1
}

# secret NAME VALUE
secret() {
    if [ "$where" = secrets ]; then
        file=secrets/$(echo "$1" | tr '[:upper:]' '[:lower:]')
        printf '%s\n' "$2" >"$file"
        # Containers of different users read it; the folder is closed to others.
        chmod 644 "$file"
        case $line in
            *=CHANGE_ME) printf '%s_IN_%s\n' "$line" "$file" ;;
            *) printf '%s\n' "$line" ;;
        esac
    else
        printf '%s=%s\n' "$1" "$2"
    fi
}

where=${1:-}
[ ! -e .env ] || fail ".env is there already and stays as it is: move it away for a new one"
[ "$where" != secrets ] || [ ! -e secrets ] ||
    fail "secrets/ is there already and stays as it is: move it away for new ones"
command -v openssl >/dev/null || fail "openssl is missing: install it"

# A private key of SEC 1 in DER has fixed places for the key and the x of its point (NIP-01's key).
pair=$(openssl ecparam -name secp256k1 -genkey -noout -outform DER | od -An -v -tx1 | tr -d ' \n' |
    sed -n 's/^30740201010420\(.\{64\}\)a00706052b8104000aa14403420004\(.\{64\}\).\{64\}$/\1 \2/p')
[ -n "$pair" ] || fail "openssl made no key on secp256k1: install a complete openssl"

[ "$where" != secrets ] || mkdir secrets
new=.env.new
trap 'rm -f "$new"' EXIT
{
    [ "$where" != secrets ] ||
        printf '%s\n\n' "COMPOSE_FILE=docker-compose.yml:docker-compose.secrets.yml"
    while IFS= read -r line; do
        case $line in
            *=CHANGE_ME | PGADMIN_DEFAULT_PASSWORD=)
                password=$(openssl rand -hex 24)
                secret "${line%%=*}" "$password"
                ;;
            SECRET_KEY=) secret SECRET_KEY "${pair% *}" ;;
            PUBLIC_KEY=) printf 'PUBLIC_KEY=%s\n' "${pair#* }" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done <env.example
} >"$new"
ln "$new" .env || fail ".env is there already and stays as it is"
echo "env: wrote .env${where:+ and secrets/}; keep a copy in a safe place. Next: docker compose up -d"
