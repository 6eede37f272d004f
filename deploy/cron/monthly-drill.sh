#!/bin/sh
# Restores the latest backup of every database of the configuration into a scratch database and compares every row, for cron. Arguments
# go to `pgkeep drill` instead of `--all`. One database that fails does not stop the others; the exit code is the first failure's.
set -eu
# shellcheck source=deploy/cron/environment.sh
. "$(dirname "$0")/environment.sh"

[ $# = 0 ] || exec "$pgkeep" --quiet drill "$@"
exec "$pgkeep" --quiet drill --all
