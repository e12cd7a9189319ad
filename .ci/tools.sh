# Sourced by .ci/run and deploy/quickstart.sh: what a build needs, checked before it starts. As root
# on Debian and RHEL-like systems what is missing is installed; elsewhere it is named, with the
# command that installs it.

say() { printf '\n== %s\n' "$*"; }
die() {
    printf '\nerror: %s\n' "$1" >&2
    exit 1
}

# need COMMAND DEBIAN-PACKAGE RHEL-PACKAGE WHY
need() {
    command -v "$1" > /dev/null && return
    install_package "$1" "$2" "$3" "$4"
    command -v "$1" > /dev/null || die "$1 is still missing after installing it"
}

# install_package WHAT DEBIAN-PACKAGE RHEL-PACKAGE WHY
install_package() {
    local how
    if command -v apt-get > /dev/null; then
        how="apt-get install -y $2"
    elif command -v dnf > /dev/null; then
        how="dnf install -y $3"
    else
        die "$1 is missing ($4). Install it: package $2 (Debian) or $3 (RHEL)."
    fi
    [ "$(id -u)" = 0 ] || die "$1 is missing ($4). Install it: sudo $how"
    say "installing $1: $how"
    if [ "${how%% *}" = apt-get ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
        DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$2"
    else
        dnf -q install -y "$3"
    fi
}

# need_venv WHY: Python, and what its environments are made with, a package of its own on Debian.
need_venv() {
    need python3 python3 python3 "$1"
    python3 -c 'import ensurepip' 2> /dev/null || install_package python3-venv python3-venv python3 "$1"
}

# Rust of the pinned version (rustup fetches it by rust-toolchain.toml), and a C compiler.
need_build_tools() {
    local pinned version
    pinned=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    # A toolchain just installed is not on the PATH of the running shell.
    command -v cargo > /dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo > /dev/null || die "Rust is missing. Install it with rustup, then run this again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain $pinned"
    version=$(cargo --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n%s\n' "$pinned" "$version" | sort -V | head -n 1)" != "$pinned" ]; then
        die "cargo is $version, and $pinned is needed. Install rustup (https://rustup.rs): it takes the version from rust-toolchain.toml."
    fi
    need cc build-essential gcc "a C compiler, for the bundled SQLite and TLS code"
}
