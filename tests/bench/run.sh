#!/usr/bin/env bash
# What scanning, rescanning and answering cost, against the least work that would do:
#
#     tests/bench/run.sh [IMAGES [PART...]]        default 10000, and all parts: scan agent flat cold slow
#
# Builds a tree of IMAGES synthetic images and ten times as many other files, runs ours and the floor
# in turn, and prints medians of CPU time (user + system) and their ratios, which the bounds are for; for
# scans of the command line and the agent's first scan also the ratio of wall time, for which a user waits;
# wall time alone where it is what is asked for (cold, slow). The tree generator, the floor program and the
# latency file system are read from SIFTER_BENCH_KIT (default ../shared/bench beside the workspace); they
# are small C programs.
#
#   scan   the command line, warm
#   agent  first scan, rescans, gRPC and start of an agent, warm
#   flat   the same images in one directory: command line and agent
#   cold   caches dropped before each run (root)
#   slow   1,000 images on a file system with 2 ms an operation (FUSE 3 with its headers)
#
# SIFTER_BIN_DIR  prebuilt release binaries, with examples/rpc_bench below
# ROUNDS  runs of each command (default 5)      WORK  where trees are kept (default target/bench)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
images=${1:-10000}
parts=" ${*:2} "
[ $# -gt 1 ] || parts=" scan agent flat cold slow "
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
sifter=$(cd "$bin" && pwd)/sifter
mkdir -p "$work"
work=$(cd "$work" && pwd)
floor=$work/floor
cc -O2 -o "$work/gen" "$kit/gen.c"
cc -O2 -pthread -o "$floor" "$kit/floor.c"
grow() { [ -d "$2" ] || { echo "making $2"; "$work/gen" -n "$1" "$2" > /dev/null; }; }
grow "$images" "$work/tree-$images"
tree=$(cd "$work/tree-$images" && pwd -P)

agent= state= mounted=
stop_agent() {
    [ -n "$agent" ] || return 0
    kill "$agent" 2> /dev/null || true
    wait "$agent" 2> /dev/null || true
    agent=
}
cleanup() {
    stop_agent
    [ -z "$state" ] || rm -rf "$state"
    [ -z "$mounted" ] || fusermount3 -u "$mounted" || true
}
trap cleanup EXIT

# Seconds of a command, its output thrown away: of the processor and on the clock, or on the clock.
measured() {
    local TIMEFORMAT=$1
    shift
    { time "$@" > /dev/null 2> /dev/null; } 2>&1
}
cpu() { measured '%U %S %R' "$@" | awk '{print $1 + $2, $3}'; }
wall() { measured '%R' "$@"; }

# median [COLUMN]
median() { awk -v c="${1:-1}" '{print $c}' | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

# row NAME OURS THEIRS LIMIT [OURS THEIRS]: the last two on the clock
row() {
    awk -v n="$1" -v a="$2" -v b="$3" -v l="$4" -v c="${5:-}" -v d="${6:-}" 'BEGIN {
        printf "%-56s %8.4f s %8.4f s  ratio %.2f  (at most %s)", n, a, b, a / b, l
        if (c != "" && d > 0) printf "  wall %.2f (%.3f s, %.3f s)", c / d, c, d
        print ""
    }'
}

# Medians of two commands run in turn, and their ratio: compare cpu|wall BEFORE NAME LIMIT OURS -- THEIRS
compare() {
    local how=$1 before=$2 name=$3 limit=$4 ours=() clock=
    [ "$how" = wall ] || clock=too
    shift 4
    while [ "$1" != -- ]; do ours+=("$1"); shift; done
    shift
    : > "$work/a"
    : > "$work/b"
    for _ in $(seq "$rounds"); do
        "$before"
        "$how" "${ours[@]}" >> "$work/a"
        "$before"
        "$how" "$@" >> "$work/b"
    done
    row "$name" "$(median < "$work/a")" "$(median < "$work/b")" "$limit" \
        ${clock:+"$(median 2 < "$work/a")" "$(median 2 < "$work/b")"}
}
drop_caches() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
}
warm() { "$floor" -m lean -r 0 "$1" > /dev/null; }

# --- the command line ----------------------------------------------------------------------------------
scans() { # TREE
    warm "$1"
    compare cpu true "scan (table) / floor -m lean" 1.5 "$sifter" scan "$1" -- "$floor" -m lean -r 0 "$1"
    compare cpu true "scan --json / floor -m lean" 1.5 "$sifter" scan --json "$1" -- "$floor" -m lean -r 0 "$1"
}

# --- the agent -----------------------------------------------------------------------------------------
# The unit lets the agent see file systems read-only (ProtectSystem=strict), of which Landlock makes use:
# here too, where this user may mount. Its allocator is told the same.
export MIMALLOC_ABANDONED_PAGE_PURGE=1
as_the_unit=(unshare --mount sh -c 'mount --bind "$TREE" "$TREE" && mount -o remount,bind,ro "$TREE" && exec "$@"' sh)
TREE=$tree "${as_the_unit[@]}" true 2> /dev/null || { as_the_unit=(env); echo "the tree cannot be mounted read-only, as the unit has it"; }

# new_state TREE
new_state() {
    [ -z "$state" ] || rm -rf "$state"
    state=$(mktemp -d "$work/state.XXXXXX")
    cat > "$state/agent.toml" << TOML
state_directory = "$state"
listen = ["unix:$state/agent.sock", "127.0.0.1:0"]
[[root]]
path = "$1"
interval = "7d"
file_interval = "7d"
hints = false
TOML
    export TREE=$1 SIFTER_ADDRESS=unix:$state/agent.sock
}

# start_agent CONDITION…: until a command succeeds.
start_agent() {
    "${as_the_unit[@]}" "$sifter" agent --config "$state/agent.toml" > "$state/out" 2> "$state/log" &
    agent=$!
    until "$@" > /dev/null 2>&1; do
        kill -0 "$agent" || { cat "$state/log" >&2; exit 1; }
        sleep 0.05 # between two looks
    done
}
# The end of the first scan is read from the log: the answers to a client that asks again and again would
# be charged to the agent.
has_scanned() { grep -q scanned "$state/log"; }
answers() { "$sifter" ls --quiet --filter 'path=/none'; }

# CPU seconds that the agent has used, in the kernel's steps of some 10 ms.
used() { awk -v hz="$(getconf CLK_TCK)" '{print ($14 + $15) / hz}' "/proc/$agent/stat"; }

# What some scans in a row cost the agent; before each the command is run, if one is given:
# scans_cost [COMMAND...]
scans=4
scans_cost() {
    local before scan
    before=$(used)
    for scan in $(seq "$scans"); do
        [ $# = 0 ] || "$@" "$scan"
        "$sifter" rescan > "$work/rescan"
    done
    awk -v a="$before" -v b="$(used)" 'BEGIN {print b - a}'
}
# Means, since what one scan costs is not many of the kernel's steps: mean FILE
mean() { awk -v n="$scans" '{sum += $1} END {print sum / NR / n}' "$1"; }

# Until nothing is younger than timestamps are fine: what was is read once more.
settle() {
    sleep 2.5
    "$sifter" rescan > /dev/null
}

# What the floor's rescan takes of the processor: it prints what each takes on the clock, of directories alone and
# of both. floor_rescan TREE
floor_rescan() {
    local TIMEFORMAT='cpu %U %S' runs=8 base
    base=$(cpu "$floor" -m lean -t 1 -r 0 "$1")
    { time "$floor" -m lean -t 1 -r "$runs" "$1"; } 2>&1 | awk -v base="${base% *}" -v n="$runs" '
        /^rescan dirs / {directories += $5}
        /^rescan d\+f / {both += $5}
        /^cpu/ {cpu = $2 + $3}
        END {print (cpu - base) / n * both / (directories + both)}'
}

# Of an agent over TREE, which is left running: agent_scans TREE
agent_scans() {
    local some stat none one started unchanged changed
    new_state "$1"
    warm "$1"
    for _ in $(seq "$rounds"); do cpu "$floor" -m lean -r 0 "$1"; done > "$work/lean"
    for _ in $(seq "$rounds"); do
        stop_agent
        rm -f "$state"/catalog.sqlite*
        started=$EPOCHREALTIME
        start_agent has_scanned
        awk -v cpu="$(used)" -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN {print cpu, to - from}'
    done > "$work/first"
    # The loop ran in this shell: the agent of its last round is there.
    # On the clock from the start of the process to the line of the log, which is looked for every 0.05 s.
    row "first scan with catalogue / floor -m lean" "$(median < "$work/first")" "$(median < "$work/lean")" 2.0 \
        "$(median 2 < "$work/first")" "$(median 2 < "$work/lean")"
    some=$(find "$1" -name '*.sif' -print -quit)
    add_image() { cp --sparse=always "$some" "$(dirname "$some")/new-$1.sif"; }
    # In turn, for the machine may be slower in one minute than in the next.
    rm -f "$work/stat" "$work/none" "$work/one"
    for _ in $(seq "$rounds"); do
        floor_rescan "$1" >> "$work/stat"
        settle
        scans_cost >> "$work/none"
        unchanged=$(cat "$work/rescan")
        scans_cost add_image >> "$work/one"
        changed=$(cat "$work/rescan")
        rm -f "$(dirname "$some")"/new-*.sif
    done
    stat=$(median < "$work/stat") none=$(mean "$work/none") one=$(mean "$work/one")
    row "no-change rescan / stat-only floor" "$none" "$stat" 1.5
    echo "$unchanged"
    row "one new image / no-change rescan" "$one" "$none" "$2"
    echo "$changed"
    awk '/VmRSS/ {now = $2} /VmHWM/ {most = $2} END {printf "agent: %d MiB resident, %d MiB at most\n", now / 1024, most / 1024}' "/proc/$agent/status"
}

answers_cost() {
    "$rpc_bench" "$(sed -n 's/^listening on \(127.*\)/\1/p' "$state/out")"
    stop_agent
    local start
    start=$(date +%s%N)
    start_agent answers
    echo "start with a catalogue to the first answer               $((($(date +%s%N) - start) / 1000000)) ms (at most 300)"
}

# --- a file system with latency ------------------------------------------------------------------------
slow() {
    local best threads few=$work/tree-1000 at=$work/slow server
    if ! cc -O2 -D_FILE_OFFSET_BITS=64 -o "$work/delayfs" "$kit/delayfs.c" $(pkg-config --cflags --libs fuse3) -pthread 2> /dev/null; then
        echo "no FUSE 3 to build against: left out"
        return
    fi
    grow 1000 "$few"
    mkdir -p "$at"
    for server in 0 8; do
        "$work/delayfs" -d 2000 -q "$server" -s "$work/counts" "$few" "$at" &
        until mountpoint -q "$at"; do
            kill -0 $! || { echo "no FUSE here: left out"; return; }
            sleep 0.05 # between two looks
        done
        mounted=$at
        best=$(for threads in 32 64 128; do
            for _ in $(seq "$rounds"); do wall "$floor" -O -m hdr -t "$threads" -r 0 "$at"; done | median
        done | sort -n | head -n 1)
        for _ in $(seq "$rounds"); do wall "$sifter" scan -q "$at"; done > "$work/a"
        if [ "$server" = 0 ]; then
            row "2 ms an operation / floor -m hdr at its best (wall)" "$(median < "$work/a")" "$best" 1.3
        else
            row "the same, $server at once (wall)" "$(median < "$work/a")" "$best" 1.3
        fi
        fusermount3 -u "$at"
        mounted=
        wait $!
        grep most_at_once "$work/counts"
    done
}

echo "machine: $(nproc) processors, $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg); $images images, $rounds rounds"
for part in $parts; do
    echo
    case $part in
        scan)
            echo "The command line, processor time, ours and theirs:"
            scans "$tree"
            compare cpu true "scan --json --basic / floor -m lean" 1.5 "$sifter" scan --json --basic "$tree" -- "$floor" -m lean -r 0 "$tree"
            compare cpu true "scan --json / find -printf" 0.8 "$sifter" scan --json "$tree" -- find "$tree" -type f -printf '%s %T@ %p\n'
            ;;
        agent)
            echo "The agent, processor time:"
            agent_scans "$tree" 1.05
            echo
            echo "gRPC on loopback:"
            answers_cost
            stop_agent
            ;;
        flat)
            echo "All images in one directory, processor time:"
            flat=$work/flat-$images
            [ -d "$flat" ] || { mkdir "$flat" && find "$tree" -name '*.sif' -exec ln -t "$flat" {} +; }
            scans "$flat"
            agent_scans "$flat" "one pass over the names, no other file opened"
            stop_agent
            ;;
        cold)
            echo "Caches dropped before each run, wall time:"
            if [ -w /proc/sys/vm/drop_caches ]; then
                compare wall drop_caches "scan -q / floor -m lean -t 8" 1.2 "$sifter" scan -q "$tree" -- "$floor" -m lean -t 8 -r 0 "$tree"
            else
                echo "may not drop caches: left out"
            fi
            ;;
        slow)
            echo "A file system with latency, wall time:"
            slow
            ;;
        *)
            echo "no such part: $part" >&2
            exit 1
            ;;
    esac
done
