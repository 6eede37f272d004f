#!/bin/sh
# Runs a command only after a proven backup: pre-deploy.sh COMMAND ARGUMENT… Without a backup the command does not run, and the exit
# code says why; otherwise the exit code is the command's. A good backup that is younger than PGKEEP_MAX_AGE (10m) is used as it is.
# PGKEEP_ON_FAILURE=restore restores the database when the command fails.
set -eu
# shellcheck source=deploy/cron/environment.sh
. "$(dirname "$0")/environment.sh"

[ $# != 0 ] || pgkeep_fail 2 "no command to run after the backup was given" "pre-deploy.sh ./migrate --all"
if [ -n "${PGKEEP_ON_FAILURE:-}" ]; then
    set -- --on-failure "$PGKEEP_ON_FAILURE" -- "$@"
else
    set -- -- "$@"
fi
exec "$pgkeep" guard --max-age "${PGKEEP_MAX_AGE:-10m}" --trigger pre-deploy "$@"
