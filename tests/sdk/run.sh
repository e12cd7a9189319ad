#!/usr/bin/env bash
# The vendor's own clients against a real agent and a real control plane: success, and every error that a
# client can meet, by code and message.
#
#     tests/sdk/run.sh
#
# Packages come from PyPI and npm into the target directory, once. SIFTER_BIN_DIR names prebuilt binaries;
# SIFTER_SHARED the directory (default: ../shared) whose sdk-clients are run too, where they stand.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
. .ci/tools.sh
exec < /dev/null

need python3 python3 python3 "the driver, and half of the clients"
python3 -c 'import ensurepip' 2> /dev/null || install_package python3-venv python3-venv python3 "to install the Python clients"
need node nodejs nodejs "the other half of the clients"
need npm npm npm "to install the Node.js clients"
need openssl openssl openssl "a private certificate authority"
node -e 'process.exit(process.versions.node.split(".")[0] >= 18 ? 0 : 1)' || die "node is $(node --version), and 18 is needed"

mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
binaries=${SIFTER_BIN_DIR:-}
if [ -z "$binaries" ]; then
    need_build_tools
    say "building"
    cargo build --locked -p sifter-agent -p sifter-control
    binaries=$target/debug
fi
binaries=$(cd "$binaries" && pwd)

# bring NAME FILE COMMAND…: into a folder of the target directory, again when the list of packages changes.
bring() {
    local name=$1 list=$2
    shift 2
    cmp -s "$list" "$cache/$name.installed" && return
    say "installing the $name clients"
    "$@"
    cp "$list" "$cache/$name.installed"
}
install_python() {
    python3 -m venv --clear "$cache/python" && "$cache/python/bin/pip" install --quiet -r "$here/requirements.txt"
}
install_node() {
    rm -rf "$cache/node" && mkdir "$cache/node" && cp "$here/package.json" "$cache/node"
    npm install --prefix "$cache/node" --no-audit --no-fund --no-package-lock --loglevel=error
}
cache=$target/sdk
mkdir -p "$cache"
bring Python "$here/requirements.txt" install_python
bring Node.js "$here/package.json" install_node

# The Python clients would ask a proxy even for the loopback address.
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy
export NODE_PATH=$cache/node/node_modules PYTHONDONTWRITEBYTECODE=1
say "calling"
"$cache/python/bin/python" "$here/suite.py" "$binaries" "$PWD/tests/images"
