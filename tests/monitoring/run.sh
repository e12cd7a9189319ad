#!/usr/bin/env bash
# The alert rules and the dashboard against real metrics: an agent and a control plane are scraped by a
# Prometheus, which then evaluates every rule and every panel's query (deploy/monitoring/check.sh).
#
#     tests/monitoring/run.sh
#
# SIFTER_BIN_DIR names prebuilt binaries. As root on Debian it installs what is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
. .ci/tools.sh
exec < /dev/null

need promtool prometheus golang-github-prometheus "to check rules"
need prometheus prometheus golang-github-prometheus "to evaluate rules and panels"
need jq jq jq "to read the dashboard"
need curl curl curl "to read metrics"
binaries=${SIFTER_BIN_DIR:-}
if [ -z "$binaries" ]; then
    need_build_tools
    cargo build --locked --workspace --bins
    binaries=${CARGO_TARGET_DIR:-target}/debug
fi
binaries=$(cd "$binaries" && pwd)
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy

work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-monitoring.XXXXXX")
processes=()
trap 'kill "${processes[@]}" 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"' EXIT

# start NAME COMMAND…
start() {
    local name=$1
    shift
    "$@" > "$work/$name.log" 2>&1 &
    processes+=($!)
}

# within SECONDS WHAT COMMAND…: until it succeeds.
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { tail -n 20 "$work"/*.log >&2 && die "$what"; }
        sleep 0.2 # between two looks
    done
}

free_port() {
    local port=$1
    while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
    echo "$port"
}
agent_port=$(free_port 9180)
control_port=$(free_port $((agent_port + 1)))
http_port=$(free_port $((control_port + 1)))
prometheus_port=$(free_port $((http_port + 1)))

# With TLS, a root that is missing and a login node that is not there: the more there is to show.
mkdir "$work/images" && cp -r tests/images/. "$work/images/"
mkdir -p "$work/tls"
deploy/enroll.sh --dir "$work/tls" ca > /dev/null
deploy/enroll.sh --dir "$work/tls" agent localhost > /dev/null
deploy/enroll.sh --dir "$work/tls" control control.test > /dev/null
cat > "$work/agent.toml" << TOML
system = "monitored"
state_directory = "$work/state"
listen = ["unix:$work/agent.sock", "tls:127.0.0.1:0"]
metrics = "127.0.0.1:$agent_port"
[tls]
cert = "$work/tls/localhost/agent.pem"
key = "$work/tls/localhost/agent.key"
client_ca = "$work/tls/ca.pem"
allow = ["control.test"]
[[root]]
path = "$work/images"
interval = "1s"
[[root]]
path = "$work/missing"
interval = "1s"
TOML
cat > "$work/control.toml" << TOML
auth = "none"
[server]
listen = ["127.0.0.1:$http_port"]
[admin]
listen = "127.0.0.1:$control_port"
[agents]
partial_listings = "serve"
[agent_tls]
ca = "$work/tls/ca.pem"
cert = "$work/tls/control.test/control.pem"
key = "$work/tls/control.test/control.key"
[[clusters]]
id = "monitored"
account = "1000000000000001"
login_nodes = ["unix:$work/agent.sock"]
[[clusters]]
id = "nowhere"
account = "1000000000000001"
login_nodes = ["127.0.0.1:1"]
TOML
# As it is shipped, but for the addresses and how often it looks.
sed -e "s/\"login1[^]]*/\"127.0.0.1:$agent_port\"/" -e "s/\"control.example[^]]*/\"127.0.0.1:$control_port\"/" \
    -e "s|sifter.rules.yml|$top/deploy/monitoring/sifter.rules.yml|" deploy/monitoring/prometheus.yml > "$work/prometheus.yml"
printf 'global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n' >> "$work/prometheus.yml"

start agent "$binaries/sifter" agent --config "$work/agent.toml"
start control "$binaries/sifter-control" serve --config "$work/control.toml"
start prometheus prometheus --config.file "$work/prometheus.yml" --storage.tsdb.path "$work/data" \
    --web.listen-address "127.0.0.1:$prometheus_port"
export PROMETHEUS=http://127.0.0.1:$prometheus_port
control=http://127.0.0.1:$http_port
# ask CLUSTER: a listing, or an error.
ask() { curl -sS "$control/?Action=ListContainerImages&Version=2018-04-12&ClusterId=$1&ContainerType=singularity"; }
answers() { ask monitored | grep -q TotalCount; }
# is EXPRESSION: Prometheus has a series for it.
is() { curl -sS --get --data-urlencode "query=$1" "$PROMETHEUS/api/v1/query" | jq -e '.data.result | length > 0'; }

within 60 "the control plane does not answer" answers
# Calls, and rates of them: what is counted must have been seen before and after.
calls() {
    answers && ask nowhere > /dev/null && "$binaries/sifter" ls --address "unix:$work/agent.sock" > /dev/null
    is 'rate(sifter_control_http_requests_total{status="406"}[5m]) > 0' && is 'rate(grpc_server_handled_total[5m]) > 0' &&
        is 'sifter_agent_root_available == 0' && is 'sifter_agent_images'
}
within 60 "Prometheus does not see the calls" calls
deploy/monitoring/check.sh "http://127.0.0.1:$agent_port/metrics" "http://127.0.0.1:$control_port/metrics"
is '{__name__="ALERTS", alertname="SifterRootUnavailable"}' > /dev/null || die "the alert of a missing root is not pending"
