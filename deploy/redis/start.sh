#!/bin/sh
# Starts Redis with the users of users.acl and rejoinder's password of a file: in a users' file Redis itself knows
# neither comments nor passwords that lie elsewhere. Arguments are redis-server's.
#
# Used by compose.replicas.yaml and kustomization.yaml, and by the tests, which set where things lie.
set -eu
umask 077
: "${REDIS_SETTINGS:=/etc/redis}" "${REDIS_RUN:=/run/redis}" "${REDIS_PASSWORD_FILE:=/run/secrets/redis-password}"

password=$(tr -d '\r\n' <"$REDIS_PASSWORD_FILE")
if [ "${#password}" -lt 16 ]; then
    echo "start.sh: the password in $REDIS_PASSWORD_FILE has fewer than 16 characters" >&2
    exit 1
fi
hash=$(printf %s "$password" | sha256sum | cut -c 1-64)
unset password

HASH="#$hash" awk '
    /^[[:space:]]*(#|$)/ { next }
    /^[^[:space:]]/ && NR > 1 && started { printf "\n" }
    {
        started = 1
        for (i = 1; i <= NF; i++) printf "%s%s", (i > 1 || /^[[:space:]]/ ? " " : ""), ($i == "PASSWORD" ? ENVIRON["HASH"] : $i)
    }
    END { printf "\n" }
' "$REDIS_SETTINGS/users.acl" >"$REDIS_RUN/users.acl"

exec redis-server "$REDIS_SETTINGS/redis.conf" --aclfile "$REDIS_RUN/users.acl" "$@"
