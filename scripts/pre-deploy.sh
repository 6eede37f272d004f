#!/bin/sh
# Runs a command only behind a proven backup: pre-deploy.sh COMMAND ARGUMENT… Without a backup the command does not run, and the exit
# code says why; else the exit code is the command's. A good backup that is younger than PGKEEP_MAX_AGE (10m) is taken as it is.
# PGKEEP_ON_FAILURE=restore brings the database back when the command fails.
set -eu
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"

[ $# != 0 ] || pgkeep_fail 2 "nobody said what to run behind the backup" "pre-deploy.sh ./migrate --all"
if [ -n "${PGKEEP_ON_FAILURE:-}" ]; then
    set -- --on-failure "$PGKEEP_ON_FAILURE" -- "$@"
else
    set -- -- "$@"
fi
exec "$pgkeep" guard --max-age "${PGKEEP_MAX_AGE:-10m}" --trigger pre-deploy "$@"
