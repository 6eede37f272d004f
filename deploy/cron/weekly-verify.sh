#!/bin/sh
# Reads stored backups back and compares every byte with the manifests, for cron: the newest backup of each database and two more by
# chance. Arguments go to `pgkeep verify` instead of `--sample 2`. Prints nothing when everything is whole.
set -eu
# shellcheck source=deploy/cron/environment.sh
. "$(dirname "$0")/environment.sh"

[ $# = 0 ] || exec "$pgkeep" --quiet verify "$@"
exec "$pgkeep" --quiet verify --sample 2
