#!/bin/sh
# Backs up every database of the configuration, for cron. Arguments go to `pgkeep backup`, exit codes come from it: 0 means that
# everything is stored and proven. Prints nothing when all went well. Waits at most half an hour for another run of the same database.
set -eu
# shellcheck source=deploy/cron/environment.sh
. "$(dirname "$0")/environment.sh"

# `pgkeep deploy install cron` tries this once: whether a backup would work in cron's environment.
[ -z "${PGKEEP_TRY:-}" ] || exec "$pgkeep" check

exec "$pgkeep" --quiet backup --trigger schedule --lock-timeout "${PGKEEP_LOCK_TIMEOUT:-30m}" "$@"
