#!/bin/sh
# Backs up every database of the configuration, for cron. Arguments go to `pgkeep backup`, exit codes come from it: 0 says that all
# is stored and proven. Says nothing when all went well. Another run of the same database is waited for, half an hour at most.
set -eu
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"

# What install-cron.sh tries once: whether a backup would work in cron's environment.
[ -z "${PGKEEP_TRY:-}" ] || exec "$pgkeep" check

exec "$pgkeep" --quiet backup --trigger schedule --lock-timeout "${PGKEEP_LOCK_TIMEOUT:-30m}" "$@"
