#!/usr/bin/env bash
# What an answer of the HTTP API costs: signed requests to the real control plane with the real agent
# behind it, against the same stack that answers a constant, in one run:
#
#     tests/bench/control.sh [REQUESTS]        requests over which memory is watched, default 200000
#
# Prints the times of requests one after the other, the rates of 32 connections with the processor time of
# each process, and resident memory. SIFTER_BIN_DIR names prebuilt release binaries, with
# examples/control_bench among them if that is not to be built either; LOG what the control
# plane logs (default info: a line a request, as it is installed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
requests=${1:-200000}
target=${CARGO_TARGET_DIR:-target}
bin=${SIFTER_BIN_DIR:-}
if [ -z "$bin" ]; then
    cargo build --locked --release --quiet -p sifter-agent -p sifter-control
    bin=$target/release
fi
bench=${SIFTER_BIN_DIR:-/nonexistent}/examples/control_bench
if [ ! -x "$bench" ]; then
    cargo build --locked --release --quiet -p sifter-control --example control_bench
    bench=$target/release/examples/control_bench
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-bench.XXXXXX")
processes=()
cleanup() {
    for process in "${processes[@]}"; do
        kill "$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

cat > "$work/keys.toml" << TOML
[[key]]
access_key_id = "bench"
secret = "bench-secret"
account_id = "1000000000000001"
policies = ["AliyunEHPCReadOnlyAccess"]
TOML
chmod 600 "$work/keys.toml"
mkdir "$work/nonces"
cat > "$work/control.toml" << TOML
[auth]
keys = "keys.toml"
state_directory = "$work/nonces"
[server]
listen = ["127.0.0.1:0"]
[limits]
key_requests_per_second = 0
[[clusters]]
id = "bench"
account = "1000000000000001"
login_nodes = ["unix:$work/agent.sock"]
TOML

# start NAME COMMAND…: into the variable NAME its process ID.
start() {
    local name=$1
    shift
    "$@" > "$work/$name.out" 2> "$work/$name.log" < /dev/null &
    processes+=($!)
    printf -v "$name" %s $!
}
# address NAME: what it says it listens on.
address() {
    local found
    until found=$(sed -n 's|^listening on \(http://\)\{0,1\}\(127.*\)|\2|p' "$work/$1.out" | head -n 1) && [ -n "$found" ]; do
        kill -0 "${!1}" || { cat "$work/$1.log" >&2; exit 1; }
        sleep 0.05 # between two looks
    done
    echo "$found"
}
start agent "$bin/sifter" agent --root tests/images --listen "unix:$work/agent.sock" --listen 127.0.0.1:0 \
    --system bench --state-dir "$work/state"
until "$bin/sifter" ls --quiet --address "unix:$work/agent.sock" > /dev/null 2>&1; do
    kill -0 "$agent" || { cat "$work/agent.log" >&2; exit 1; }
    sleep 0.05 # between two looks
done
start control env RUST_LOG="${LOG:-info}" "$bin/sifter-control" serve --config "$work/control.toml"
start constant "$bench" constant

echo "machine: $(nproc) processors, $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg)"
"$bench" measure "$(address control)" "$control" "$(address constant)" "$constant" "$(address agent)" "$agent" "$requests"
