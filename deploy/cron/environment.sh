# shellcheck shell=sh
# Shared by the scripts beside it: the environment that cron does not give. Sourced, never run.
# PGKEEP_ENV_FILE names a file with NAME=value lines, as systemd reads them. No shell runs what is in it.

pgkeep_fail() {
    code=$1
    printf 'error: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'hint: %s\n' "$3" >&2
    exit "$code"
}

pgkeep_load() {
    # The file is there for secrets.
    # shellcheck disable=SC2016 # No shell is meant to read the words.
    case $(ls -ldL "$1") in
        ????r* | ???????r*) printf 'warning: other users can read `%s`; run chmod 600 on it\n' "$1" >&2 ;;
    esac
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '' | '#'* | ';'*) continue ;;
            [A-Za-z_]*=*) ;;
            *) pgkeep_fail 2 "a line of \`$1\` is not NAME=value; nothing was started" ;;
        esac
        name=${line%%=*}
        value=${line#*=}
        case $name in
            *[!A-Za-z0-9_]*) pgkeep_fail 2 "a line of \`$1\` is not NAME=value; nothing was started" ;;
        esac
        case $value in
            \"*\") value=${value#\"} value=${value%\"} ;;
            \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        export "$name=$value"
    done <"$1"
}

if [ -n "${PGKEEP_ENV_FILE:-}" ]; then
    [ -r "$PGKEEP_ENV_FILE" ] || pgkeep_fail 2 "cannot read \`$PGKEEP_ENV_FILE\`, which PGKEEP_ENV_FILE names; nothing was started"
    pgkeep_load "$PGKEEP_ENV_FILE"
elif [ -r /etc/pgkeep/pgkeep.env ]; then
    pgkeep_load /etc/pgkeep/pgkeep.env
fi

# cron sets PATH to /usr/bin:/bin.
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/opt/homebrew/bin${HOME:+:$HOME/.cargo/bin:$HOME/.local/bin}
export PATH
pgkeep=${PGKEEP:-pgkeep}
command -v "$pgkeep" >/dev/null || pgkeep_fail 26 "there is no \`$pgkeep\` in the PATH; nothing was started" \
    "PGKEEP=/full/path/of/pgkeep, here or in the file that PGKEEP_ENV_FILE names"
