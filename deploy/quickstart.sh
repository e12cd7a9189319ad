#!/usr/bin/env bash
# Builds Sifter, starts an agent over DIR and a control plane on loopback, shows what they answer, and
# stops both on Ctrl-C (with --once: by itself).
#
#     deploy/quickstart.sh [DIR] [--once]      (default DIR: tests/images, small real images)
#
# PROFILE names the cargo profile; the default, dev, builds soonest and shares its build with the
# tests. Nothing is left behind but the target directory (and a C compiler, if root had none).
set -euo pipefail
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
once=false
unset dir
for argument in "$@"; do
    case $argument in
        --once) once=true ;;
        -h | --help) usage && exit ;;
        -*) echo "unknown option: $argument" >&2 && usage >&2 && exit 2 ;;
        *)
            [ -z "${dir+given}" ] || { echo "one directory at a time: $dir, $argument" >&2 && usage >&2 && exit 2; }
            dir=$argument
            ;;
    esac
done
dir=${dir-$here/tests/images}
[ -d "$dir" ] || { echo "not a directory: $dir" >&2 && exit 2; }
dir=$(cd "$dir" && pwd)
cd "$here"
. .ci/tools.sh
need_build_tools

profile=${PROFILE:-dev}
say "building (profile $profile; the first time takes a few minutes)"
cargo build --profile "$profile" -p sifter-agent -p sifter-control
bin=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")

run=$(mktemp -d "${TMPDIR:-/tmp}/sifter.XXXXXX")
agent= control=
stop() {
    trap - EXIT INT TERM
    for process in $control $agent; do
        kill "$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    rm -rf "$run"
}
trap stop EXIT
trap 'echo; exit 0' INT TERM

# free_port FROM: the first port from there on that nothing listens on.
free_port() {
    local port=$1
    while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
    echo "$port"
}

# wait_for WHAT PROCESS LOG COMMAND…: until the command succeeds, while the process lives.
wait_for() {
    local what=$1 process=$2 log=$3 deadline=$((SECONDS + 60))
    shift 3
    until "$@" > /dev/null 2>&1; do
        if ! kill -0 "$process" 2> /dev/null || [ $SECONDS -ge $deadline ]; then
            cat "$log" >&2
            die "$what did not start"
        fi
        sleep 0.1 # between two looks
    done
}

# get PATH: status line and body of the control plane's answer. curl may be missing; bash is not.
get() {
    exec 3<> "/dev/tcp/127.0.0.1/$http_port"
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}
answers_ok() { get "$1" | head -n 1 | grep -q '^HTTP/1.1 200'; }
pretty() { if command -v jq > /dev/null; then jq .; elif command -v python3 > /dev/null; then python3 -m json.tool --no-ensure-ascii; else cat; fi; }

grpc_port=$(free_port 7430)
http_port=$(free_port 8080)
socket=$run/agent.sock
cat > "$run/control.toml" << CONFIG
auth = "none"

[server]
listen = ["127.0.0.1:$http_port"]

[[clusters]]
id = "quickstart"
account = "1000000000000001"
login_nodes = ["unix:$socket"]
CONFIG

say "starting the agent over $dir, and the control plane"
"$bin/sifter" agent --root "$dir" --listen "unix:$socket" --listen "127.0.0.1:$grpc_port" \
    --system mycluster --state-dir "$run/state" > "$run/agent.log" 2>&1 < /dev/null &
agent=$!
"$bin/sifter-control" serve --config "$run/control.toml" > "$run/control.log" 2>&1 < /dev/null &
control=$!
request='/?Action=ListContainerImages&Version=2018-04-12&ClusterId=quickstart&ContainerType=singularity&PageNumber=1&PageSize=10'
wait_for "the agent" $agent "$run/agent.log" "$bin/sifter" status --address "unix:$socket"
wait_for "the control plane" $control "$run/control.log" answers_ok "$request"

say "what the agent lists: sifter ls --address unix:$socket"
"$bin/sifter" ls --address "unix:$socket"

say "what the control plane answers: ListContainerImages, first page"
get "$request" | sed '1,/^\r$/d' | pretty

$once && exit 0

cat << TRY

== running; to try in another terminal:

  curl 'http://127.0.0.1:$http_port$request'
  grpcurl -plaintext 127.0.0.1:$grpc_port list
  grpcurl -plaintext 127.0.0.1:$grpc_port describe sifter.v1.Image
  grpcurl -plaintext -d '{"page_size": 5}' 127.0.0.1:$grpc_port sifter.v1.ImageService/ListImages
  grpcurl -plaintext -unix -authority localhost -d '{}' $socket sifter.v1.AgentService/GetStatus
  $bin/sifter scan $dir
  $bin/sifter inspect $(find "$dir" -name '*.sif' -type f -print -quit)

Logs: $run/agent.log, $run/control.log. Ctrl-C stops both.
TRY
wait -n $agent $control || true
cat "$run/agent.log" "$run/control.log" >&2
die "a process has ended by itself"
