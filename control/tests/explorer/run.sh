#!/usr/bin/env bash
# The Explorer in headless Chromium, over a real agent and real control planes: one that checks signatures
# and one with auth = "none"; then the page's sample code, run as it was copied.
#
#     control/tests/explorer/run.sh
#
# Packages come from npm and PyPI into the target directory, once. SIFTER_BIN_DIR names prebuilt binaries,
# CHROMIUM the browser.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../../.."
. .ci/tools.sh
exec < /dev/null

need node nodejs nodejs "it drives the browser"
need npm npm npm "to install what drives the browser"
need python3 python3 python3 "for the sample code"
need curl curl curl "for the sample code"
need openssl openssl openssl "for the sample code"
export CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
[ -n "$CHROMIUM" ] || { need chromium chromium chromium "a browser without a screen" && CHROMIUM=$(command -v chromium); }

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
cache=$target/explorer
packages=(playwright-core@1.65.1 @alicloud/pop-core@1.8.0)
if [ "$(cat "$cache/installed" 2> /dev/null)" != "${packages[*]}" ]; then
    say "installing ${packages[*]}"
    mkdir -p "$cache"
    npm install --prefix "$cache" --no-audit --no-fund --no-package-lock --loglevel=error "${packages[@]}"
    echo "${packages[*]}" > "$cache/installed"
fi
export NODE_PATH=$cache/node_modules PATH=$binaries:$PATH
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy

work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-explorer.XXXXXX")
processes=()
cleanup() {
    for process in "${processes[@]}"; do
        kill "$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

# start NAME COMMAND…
start() {
    local name=$1
    shift
    "$@" > "$work/$name.out" 2> "$work/$name.log" &
    processes+=($!)
}
# until_works NAME COMMAND…: while the last process lives.
until_works() {
    local name=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" > /dev/null 2>&1; do
        if ! kill -0 "${processes[-1]}" 2> /dev/null || [ $SECONDS -ge $deadline ]; then
            cat "$work/$name.log" >&2
            die "$name did not start"
        fi
        sleep 0.1 # between two looks
    done
}
# control NAME AUTH: a control plane; its URL.
control() {
    cat > "$work/$1.toml" << TOML
$2
[server]
listen = ["127.0.0.1:0"]
[[clusters]]
id = "explored"
account = "1000000000000001"
login_nodes = ["unix:$work/agent.sock"]
TOML
    start "$1" "$binaries/sifter-control" serve --config "$work/$1.toml"
    until_works "$1" grep -q '^listening on ' "$work/$1.out"
    url=$(sed -n 's/^listening on //p' "$work/$1.out")
}
# samples DIRECTORY: each prints the listing.
samples() {
    local file
    export ALIBABA_CLOUD_ACCESS_KEY_ID=$key ALIBABA_CLOUD_ACCESS_KEY_SECRET=$secret
    for file in "$1"/*; do
        local how
        case $file in
            */Python_no_SDK_) how=python3 ;;
            */Node_js) how=node ;;
            */curl | */sifter_control) how=bash ;;
            # tests/sdk runs that SDK.
            *) continue ;;
        esac
        "$how" "$file" > "$work/answer" 2>&1 || { cat "$file" "$work/answer" >&2; die "the sample $(basename "$file") failed"; }
        grep -qE '"TotalCount": *[1-9]|^page 1: 2 of ' "$work/answer" || { cat "$file" "$work/answer" >&2; die "the sample $(basename "$file") shows no listing"; }
        echo "sample $(basename "$file"): ok"
    done
}

start agent "$binaries/sifter" agent --root tests/images --listen "unix:$work/agent.sock" --system explored --state-dir "$work/state"
until_works agent "$binaries/sifter" ls --quiet --address "unix:$work/agent.sock"
umask 077
cat > "$work/keys.toml" << TOML
[[key]]
access_key_id = "explorer"
secret = "explorer-secret"
account_id = "1000000000000001"
policies = ["AliyunEHPCReadOnlyAccess"]
TOML

passed=0
for auth in signatures none; do
    say "auth: $auth"
    mkdir "$work/samples-$auth"
    if [ $auth = none ]; then
        control none 'auth = "none"'
        node "$here/browser.cjs" "$url" "" "" explored "$work/samples-$auth"
        # Whoever signs may do so with any key.
        key=anybody secret=anything
    else
        control signatures $'[auth]\nkeys = "keys.toml"'
        key=explorer secret=explorer-secret
        node "$here/browser.cjs" "$url" $key $secret explored "$work/samples-$auth"
    fi
    samples "$work/samples-$auth"
    passed=$((passed + 1))
done
echo "$passed passed, 0 failed"
