#!/bin/sh
# Puts pgkeep's entries into this user's crontab, shows them, or takes them out again. Nothing else in the crontab is changed.
set -eu

usage() {
    cat <<'END'
Usage: install-cron.sh install [--backup TIMES] [--drill TIMES] [--env-file FILE]
       install-cron.sh show
       install-cron.sh remove

TIMES are cron's five fields, or `none` for no entry. By default a backup every night at 3:15 and a drill on the first of a
month at 4:41. Installing again replaces the entries. `pgkeep check` then runs once in cron's environment, and what it
says is shown where a backup would fail.
END
}

fail() {
    code=$1
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint: %s\n' "$3" >&2
    exit "$code"
}

begin='# BEGIN pgkeep: written by install-cron.sh, which replaces all up to END'
end='# END pgkeep'
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Reads the crontab as it is, byte for byte. None at all is an empty one; one that cannot be read is left alone.
read_crontab() {
    command -v crontab >/dev/null || fail 26 "cron is not installed: there is no \`crontab\`" "sudo apt-get install cron"
    if ! LC_ALL=C crontab -l >"$folder/old" 2>"$folder/why"; then
        grep -qi 'no crontab for' "$folder/why" || {
            cat "$folder/why" >&2
            fail 1 "cannot read the crontab; it was not changed"
        }
        : >"$folder/old"
    fi
    begins=$(grep -cxF "$begin" "$folder/old" || true)
    ends=$(grep -cxF "$end" "$folder/old" || true)
    # The other way round, all lines behind the one that begins would go.
    first=$(LC_ALL=C awk -v begin="$begin" -v end="$end" '$0 == begin { print "begin"; exit } $0 == end { print "end"; exit }' "$folder/old")
    if [ "$begins" != "$ends" ] || [ "$begins" -gt 1 ] || [ "$first" = end ]; then
        fail 25 "the marks of pgkeep in the crontab do not pair; it was not changed" "mend it with \`crontab -e\`: one \`$begin\`, and one \`$end\` behind it"
    fi
}

# Writes the crontab with the lines of a file between the marks, in the place of the ones that are there or at the end.
write_crontab() {
    LC_ALL=C awk -v begin="$begin" -v end="$end" -v block="$1" '
        function put(  line) { while ((getline line < block) > 0) print line; is_put = 1 }
        $0 == begin { put(); skips = 1 }
        !skips { print }
        $0 == end { skips = 0 }
        END { if (!is_put) put() }
    ' "$folder/old" >"$folder/new"
    cmp -s "$folder/old" "$folder/new" || crontab "$folder/new" || fail 2 "cron does not take the new crontab; it was not changed"
}

# One line of the crontab: cron reads `%` as the end of the command, the shell reads the rest.
entry() {
    quoted=$(printf '%s\n' "$2" | sed "s/'/'\\\\''/g")
    variable=
    if [ -n "$env_file" ]; then
        variable="PGKEEP_ENV_FILE='$(printf '%s\n' "$env_file" | sed "s/'/'\\\\''/g")' "
    fi
    printf '%s %s\n' "$1" "$(printf '%s\n' "$variable'$quoted'" | sed 's/%/\\%/g')"
}

check_times() {
    [ "$2" != none ] || return 0
    # shellcheck disable=SC2086 # The fields are what is counted.
    count=$(set -f && set -- $2 && echo $#)
    case $2 in
        *[!0-9A-Za-z*,/\ -]*) count=0 ;;
    esac
    [ "$count" = 5 ] || fail 2 "\`$1 $2\` are not five fields: minute, hour, day, month, weekday"
}

install_entries() {
    backup='15 3 * * *'
    drill='41 4 1 * *'
    env_file=
    while [ $# != 0 ]; do
        [ $# -gt 1 ] || fail 2 "\`$1\` needs a value"
        case $1 in
            --backup) backup=$2 ;;
            --drill) drill=$2 ;;
            --env-file) env_file=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") ;;
            *) fail 2 "\`$1\` is not known" ;;
        esac
        shift 2
    done
    check_times --backup "$backup"
    check_times --drill "$drill"
    [ -z "$env_file" ] || [ -r "$env_file" ] || fail 2 "cannot read \`$env_file\`"
    case "$here$env_file" in
        *'
'*) fail 2 "a path with a line break cannot stand in a crontab" ;;
    esac
    read_crontab
    {
        printf '%s\n' "$begin"
        [ "$backup" = none ] || entry "$backup" "$here/weekly-backup.sh"
        [ "$drill" = none ] || entry "$drill" "$here/monthly-drill.sh"
        printf '%s\n' "$end"
    } >"$folder/block"
    write_crontab "$folder/block"
    cat "$folder/block"
    [ "$backup" = none ] || try_once
}

# cron begins in the home with few variables: what works in this terminal may not work there.
try_once() {
    home=${HOME:-/}
    (cd "$home" && env -i HOME="$home" LOGNAME="$(id -un)" SHELL=/bin/sh PATH=/usr/bin:/bin PGKEEP_TRY=1 \
        ${env_file:+"PGKEEP_ENV_FILE=$env_file"} "$here/weekly-backup.sh") >"$folder/tried" 2>&1 </dev/null && {
        printf 'tried in the environment of cron: a backup would work\n' >&2
        return
    }
    printf 'warning: tried in the environment of cron, where a backup would fail as things are:\n' >&2
    sed 's/^/  /' "$folder/tried" >&2
    printf 'hint: --env-file FILE names variables for cron: PGKEEP (full path), PGKEEP_CONFIG, DATABASE_URL\n' >&2
}

case ${1:-} in
    install)
        shift
        install_entries "$@"
        ;;
    show)
        [ $# = 1 ] || fail 2 "\`show\` takes nothing more"
        read_crontab
        [ "$begins" = 1 ] || fail 10 "the crontab has no entries of pgkeep" "install-cron.sh install"
        sed -n "/^# BEGIN pgkeep: /,/^# END pgkeep\$/p" "$folder/old"
        ;;
    remove)
        [ $# = 1 ] || fail 2 "\`remove\` takes nothing more"
        read_crontab
        [ "$begins" = 0 ] || write_crontab /dev/null
        ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
