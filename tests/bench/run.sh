#!/usr/bin/env bash
# What scanning, rescanning and answering cost, against the least work that would do:
#
#     tests/bench/run.sh [IMAGES]        default 10000
#
# Builds a tree of IMAGES synthetic images and ten times as many other files, runs ours and the floor
# in turn, and prints medians of CPU time (user + system) and their ratios; wall time only where it is
# what is asked for. The tree generator, the floor program and the latency file system are read from
# SIFTER_BENCH_KIT (default ../shared/bench beside the workspace); they are small C programs.
#
# SIFTER_BIN_DIR  prebuilt release binaries, with examples/rpc_bench below
# ROUNDS  runs of each command (default 5)      WORK  where trees are kept (default target/bench)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
images=${1:-10000}
rounds=${ROUNDS:-5}
kit=${SIFTER_BENCH_KIT:-../shared/bench}
work=${WORK:-target/bench}
bin=${SIFTER_BIN_DIR:-}

[ -f "$kit/gen.c" ] || { echo "no bench kit in $kit: set SIFTER_BENCH_KIT" >&2; exit 1; }
if [ -z "$bin" ]; then
    cargo build --release --quiet -p sifter-agent
    bin=${CARGO_TARGET_DIR:-target}/release
fi
rpc_bench=$bin/examples/rpc_bench
if [ ! -x "$rpc_bench" ]; then
    cargo build --release --quiet -p sifter-tests --example rpc_bench
    rpc_bench=${CARGO_TARGET_DIR:-target}/release/examples/rpc_bench
fi
sifter=$bin/sifter
mkdir -p "$work"
work=$(cd "$work" && pwd)
cc -O2 -o "$work/gen" "$kit/gen.c"
cc -O2 -pthread -o "$work/floor" "$kit/floor.c"
tree=$work/tree-$images
[ -d "$tree" ] || { echo "making $tree"; "$work/gen" -n "$images" "$tree" > /dev/null; }
tree=$(cd "$tree" && pwd -P)

agent=
cleanup() { [ -z "$agent" ] || kill "$agent" 2> /dev/null || true; }
trap cleanup EXIT

# CPU seconds of a command, its output thrown away.
cpu() {
    local TIMEFORMAT='%U %S'
    { time "$@" > /dev/null 2> /dev/null; } 2>&1 | awk '{print $1 + $2}'
}

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

# Medians of two commands run in turn, and their ratio: compare NAME LIMIT OURS -- THEIRS
compare() {
    local name=$1 limit=$2 ours=() theirs=() a b
    shift 2
    while [ "$1" != -- ]; do ours+=("$1"); shift; done
    shift
    theirs=("$@")
    "${ours[@]}" > /dev/null 2>&1 || true
    "${theirs[@]}" > /dev/null 2>&1
    : > "$work/a"
    : > "$work/b"
    for _ in $(seq "$rounds"); do
        cpu "${ours[@]}" >> "$work/a"
        cpu "${theirs[@]}" >> "$work/b"
    done
    a=$(median < "$work/a")
    b=$(median < "$work/b")
    awk -v n="$name" -v a="$a" -v b="$b" -v l="$limit" \
        'BEGIN {printf "%-52s %7.3f s %7.3f s  ratio %.2f  (at most %s)\n", n, a, b, a / b, l}'
}

echo "machine: $(nproc) processors, $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg); $images images, $rounds rounds"
echo "CPU time, ours and theirs:"
compare "scan --json / floor -m lean" 1.5 "$sifter" scan --json "$tree" -- "$work/floor" -m lean -r 0 "$tree"
compare "scan --json --basic / floor -m lean" 1.5 "$sifter" scan --json --basic "$tree" -- "$work/floor" -m lean -r 0 "$tree"
compare "scan --json / find -printf" 0.8 "$sifter" scan --json "$tree" -- find "$tree" -type f -printf '%s %T@ %p\n'

# --- the agent -------------------------------------------------------------------------------------
state=$(mktemp -d "$work/state.XXXXXX")
cat > "$state/agent.toml" << TOML
state_directory = "$state"
listen = ["unix:$state/agent.sock", "127.0.0.1:0"]
[[root]]
path = "$tree"
interval = "7d"
file_interval = "7d"
hints = false
TOML
export SIFTER_ADDRESS=unix:$state/agent.sock

# The unit lets the agent see file systems read-only (ProtectSystem=strict), of which Landlock makes use:
# here too, where this user may mount.
read_only='mount --bind "$TREE" "$TREE" && mount -o remount,bind,ro "$TREE" && exec "$@"'
export TREE=$tree
as_the_unit=(unshare --mount sh -c "$read_only" sh)
"${as_the_unit[@]}" true 2> /dev/null || { as_the_unit=(); echo "the tree cannot be mounted read-only, as the unit has it"; }

start_agent() {
    "${as_the_unit[@]}" "$sifter" agent --config "$state/agent.toml" > "$state/out" 2> "$state/log" &
    agent=$!
    until "$sifter" ls --quiet --filter 'path=/none' > /dev/null 2>&1; do
        kill -0 "$agent" || { cat "$state/log" >&2; exit 1; }
        sleep 0.05
    done
}

# CPU seconds that the agent has used, in the kernel's steps of some 10 ms.
used() { awk -v hz="$(getconf CLK_TCK)" '{print ($14 + $15) / hz}' "/proc/$agent/stat"; }

# Mean of what a scan costs the agent, of so many in a row that the steps do not count; before each the
# command is run, if one is given: scan_cost [COMMAND...]
scan_cost() {
    local before after scans=$((rounds * 4)) round
    before=$(used)
    for round in $(seq "$scans"); do
        [ $# = 0 ] || "$@" "$round"
        "$sifter" rescan > "$work/rescan"
    done
    after=$(used)
    awk -v a="$before" -v b="$after" -v n="$scans" 'BEGIN {print (b - a) / n}'
}

lean=$(for _ in $(seq "$rounds"); do cpu "$work/floor" -m lean -r 0 "$tree"; done | median)
floor_rescan=$("$work/floor" -m lean -t 1 -r "$rounds" "$tree" | awk '/rescan d\+f/ {print $5}' | median)

# The first scan several times, each with an empty catalogue. Its end is read from the log: the answers to
# a client that asks again and again would be charged to the agent.
first_scan() {
    rm -f "$state"/catalog.sqlite*
    "${as_the_unit[@]}" "$sifter" agent --config "$state/agent.toml" > "$state/out" 2> "$state/log" &
    agent=$!
    until grep -q 'scanned' "$state/log"; do
        kill -0 "$agent" || { cat "$state/log" >&2; exit 1; }
        sleep 0.05
    done
    used
}
for _ in $(seq "$rounds"); do
    [ -z "$agent" ] || { kill "$agent"; wait "$agent" 2> /dev/null || true; }
    first_scan
done > "$work/first"
full=$(median < "$work/first")
awk -v a="$full" -v b="$lean" 'BEGIN {printf "%-52s %7.3f s %7.3f s  ratio %.2f  (at most 2.0)\n", "first scan with catalogue / floor -m lean", a, b, a / b}'
sleep 2.5
"$sifter" rescan > /dev/null # what was racy at the first scan is read again once
none=$(scan_cost)
awk -v a="$none" -v b="$floor_rescan" 'BEGIN {printf "%-52s %7.4f s %7.4f s  ratio %.2f  (at most 1.5)\n", "no-change rescan / stat-only floor (1 thread, wall)", a, b, a / b}'
cat "$work/rescan"
some=$(find "$tree" -name '*.sif' -print -quit)
add_image() { cp --sparse=always "$some" "$(dirname "$some")/new-$1.sif"; }
one=$(scan_cost add_image)
rm -f "$(dirname "$some")"/new-*.sif
awk -v a="$one" -v b="$none" 'BEGIN {printf "%-52s %7.4f s %7.4f s  ratio %.2f  (at most 1.05)\n", "one new image / no-change rescan", a, b, a / b}'
echo "agent: $(awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$agent/status") MiB resident, peak $(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$agent/status") MiB"
echo
echo "gRPC on loopback:"
"$rpc_bench" "$(sed -n 's/^listening on \(127.*\)/\1/p' "$state/out")"
kill "$agent"
wait "$agent" 2> /dev/null || true
start=$(date +%s%N)
start_agent
echo "start with a catalogue to first answer               $((($(date +%s%N) - start) / 1000000)) ms (at most 300)"
kill "$agent"
wait "$agent" 2> /dev/null || true
agent=
rm -rf "$state"
