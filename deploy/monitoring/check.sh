#!/bin/bash
# Checks rules and dashboard: syntax and unit tests by promtool, and that every metric they name is one
# that a running service has. Needs promtool (Debian package prometheus), jq and curl.
#
#   check.sh [METRICS-URL…]      as in: check.sh http://127.0.0.1:9180/metrics http://127.0.0.1:9181/metrics
#
# PROMETHEUS=http://127.0.0.1:9090 names one that scrapes both: then each panel's query and each rule is
# evaluated there, too, and panels that show nothing are named.
set -euo pipefail
cd "$(dirname "$0")"
promtool=${PROMTOOL:-promtool}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$promtool" check rules sifter.rules.yml
"$promtool" test rules sifter.rules.test.yml
"$promtool" check config --syntax-only prometheus.yml
[ "$(grep -c '^ *- alert:' sifter.rules.yml)" = "$(grep -c '^ *description:' sifter.rules.yml)" ] ||
    { echo "an alert does not say what to do: it has no description" >&2; exit 1; }

# The dashboard's queries, as rules, so that promtool reads them.
jq -r '.panels[].targets[]?.expr' grafana-sifter.json \
    | sed 's/\$__rate_interval/5m/g; s/\$instance/.*/g' > "$work/queries"
jq -Rn '{groups: [{name: "dashboard", rules: [inputs | {record: ("q" + (input_line_number | tostring)), expr: .}]}]}' \
    "$work/queries" > "$work/queries.yml"
"$promtool" check rules "$work/queries.yml"

[ $# -gt 0 ] || exit 0
for url in "$@"; do
    curl -sSf "$url"
done | sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' | sort -u > "$work/known"
{ cat "$work/queries"; grep -v '^#' sifter.rules.yml; } | grep -oE '\b(sifter_(agent|control)|grpc_server)_[a-z_]+' \
    | sed -E 's/_(total|bucket|sum|count)$//' | sort -u > "$work/named"
# These have no series, and no name: before something has happened, and without TLS.
printf '%s\n' sifter_agent_problems sifter_{agent,control}_tls_certificate_{expiry,renewal}_timestamp_seconds >> "$work/known"
sort -u -o "$work/known" "$work/known"
missing=$(comm -23 "$work/named" "$work/known")
[ -z "$missing" ] || { echo "no service has: $missing" >&2; exit 1; }
echo "all $(wc -l < "$work/named") metrics that are named exist"

[ -n "${PROMETHEUS:-}" ] || exit 0
# ask EXPRESSION: what Prometheus makes of it.
ask() { curl -sS --get --data-urlencode "query=$1" "$PROMETHEUS/api/v1/query"; }
failed=0 empty=0 count=0
while IFS= read -r query; do
    answer=$(ask "$query")
    count=$((count + 1))
    if ! jq -e '.status == "success"' <<< "$answer" > /dev/null; then
        echo "fails: $query: $(jq -r .error <<< "$answer")" >&2
        failed=$((failed + 1))
    elif jq -e '.data.result | length == 0' <<< "$answer" > /dev/null; then
        echo "shows nothing: $query"
        empty=$((empty + 1))
    fi
done < "$work/queries"
echo "$count queries of the dashboard: $failed fail, $empty show nothing now"
# Rules that Prometheus has loaded, if it has: their health is its word for evaluated without an error.
curl -sS "$PROMETHEUS/api/v1/rules" |
    jq -r '[.data.groups[].rules[]] | "\(length) rules loaded, \(map(select(.health == "err")) | length) fail"'
[ $failed = 0 ]
