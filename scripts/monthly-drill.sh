#!/bin/sh
# Restores the latest backup of every configured database into a scratch database and compares it, for cron. With arguments it is one
# drill, and they go to `pgkeep drill`. One database that fails does not stop the others; the exit code is the first failure's.
set -eu
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"

[ $# = 0 ] || exec "$pgkeep" --quiet drill "$@"

# A name stands in the configuration once, two blanks deep below `databases:`, and holds no character that YAML or a shell would read.
shown=$("$pgkeep" config show)
names=$(printf '%s\n' "$shown" | awk '/^[^ ]/ { on = ($0 == "databases:") } on && /^  [A-Za-z0-9_-]+:$/ { sub(":", ""); print $1 }')
[ -n "$names" ] || pgkeep_fail 2 "the configuration has no database" "monthly-drill.sh --storage ./backups"
code=0
for name in $names; do
    "$pgkeep" --quiet --database "$name" drill || { now=$?; [ "$code" != 0 ] || code=$now; }
done
exit "$code"
