#!/usr/bin/env bash
# Installs the .deb packages into a fresh Debian, boots a real systemd there, and holds both services to
# what docs/install.md and docs/operations.md promise, from the first start to the purge.
#
#     tests/packaging/nspawn.sh [PACKAGES]     (default: built here by deploy/package.sh)
#
# Needs root, systemd-nspawn and debootstrap; as root on Debian it installs what is missing. Leaves
# nothing behind but the cached base system.
#
#     SIFTER_NSPAWN_CACHE      directory of the base system's tarball (default: target/nspawn)
#     SIFTER_DEBIAN_MIRROR     where Debian comes from (default: as apt of this host is told)
#     SIFTER_PACKAGE_BIN       directory of the binaries to package (default: built by deploy/package.sh)
#     GRPCURL                  a grpcurl binary (default: from PATH, or installed under target/)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
. .ci/tools.sh
. tests/packaging/machine.sh
exec < /dev/null

if [ "$(id -u)" != 0 ] || [ ! -d /sys/fs/cgroup ] || ! command -v apt-get > /dev/null; then
    message="SKIPPED: the packages were not tried: this needs root on a Debian host"
    [ -z "${CI:-}" ] || die "$message"
    printf '\n%s\n\n' "$message" >&2
    exit 0
fi
need systemd-nspawn systemd-container systemd-container "to boot a system"
need debootstrap debootstrap debootstrap "to make a Debian system"
need zstd zstd zstd "to cache it"

target=${CARGO_TARGET_DIR:-$top/target}
cache=${SIFTER_NSPAWN_CACHE:-$target/nspawn}
work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-nspawn.XXXXXX")
root=$work/debian
trap 'unfinished; machine_stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

find_grpcurl
packages=${1:-$work/packages}
if [ $# = 0 ]; then
    deploy/package.sh deb --out "$packages" ${SIFTER_PACKAGE_BIN:+--bin "$SIFTER_PACKAGE_BIN"} > "$work/package.log" 2>&1 ||
        { cat "$work/package.log" >&2 && die "the packages cannot be built"; }
fi
agent_deb=$(ls "$packages"/sifter-agent_*.deb | sort -V | tail -n 1)
control_deb=$(ls "$packages"/sifter-control_*.deb | sort -V | tail -n 1)
# The same programs once more as a newer release, for the upgrade.
newer() {
    local name=$1 deb=$2
    dpkg-deb --raw-extract "$deb" "$work/newer-$name"
    sed -i 's/^Version: \(.*\)-\(.*\)$/Version: \1-\2+newer/' "$work/newer-$name/DEBIAN/control"
    # With new words in the configuration, which the site has left alone.
    [ "$name" = agent ] || echo '# newer words' >> "$work/newer-$name/etc/sifter-control/config.toml"
    dpkg-deb --root-owner-group -Znone --build "$work/newer-$name" "$root/root/newer-$name.deb" > /dev/null
}

say "a Debian system"
machine_unpack
install -d "$root/srv/images"
cp -r tests/images/. "$root/srv/images/"
chmod -R a+rX "$root/srv/images"
install -d -m 700 "$root/srv/images/private"
cp tests/images/pulled/ubuntu_22.04.sif "$root/srv/images/private/"
install -m 755 "$grpcurl" "$root/usr/local/bin/grpcurl"
install -m 755 tests/packaging/http-get.sh "$root/usr/local/bin/http-get"
cp "$agent_deb" "$root/root/agent.deb"
cp "$control_deb" "$root/root/control.deb"
newer agent "$agent_deb"
newer control "$control_deb"
say "boot (at $SECONDS s)"
machine_boot

property() { inside systemctl show --value -p "$2" "$1"; }
pid() { property "$1" MainPID; }
listed() { inside sifter ls --json | wc -l; }
listed_is() { [ "$(listed)" = "$1" ]; }
runs_anew() { [ "$(pid "$1")" != "$2" ] && [ "$(pid "$1")" != 0 ] && [ "$(property "$1" ActiveState)" = active ]; }
request='/?Action=ListContainerImages&Version=2018-04-12&ClusterId=here&ContainerType=singularity&PageNumber=1&PageSize=10'

# --- Install ----------------------------------------------------------------------------------
step "both packages install"
inside apt-get install -y /root/agent.deb /root/control.deb > "$work/apt.log" 2>&1 || { cat "$work/apt.log" && bad "apt-get install"; }
# apt would fetch them, and fail where a site has no way to its mirror.
ok "they want nothing that a minimal Debian does not have" eval '! grep -A1 "^Recommended packages:\|additional packages" "$work/apt.log"'
for unit in sifter-agent sifter-control; do
    is "$unit is not enabled before it is configured" "$(inside systemctl is-enabled $unit || true)" disabled
    is "$unit is not started before it is configured" "$(inside systemctl is-active $unit || true)" inactive
done
is "the agent's user is a system user" "$(inside id -un sifter):$(inside sh -c '[ $(id -u sifter) -lt 1000 ] && echo system')" sifter:system
is "the catalogue's directory" "$(inside stat -c '%U:%G %a' /var/lib/sifter)" "sifter:sifter 750"
ok "dpkg finds no file changed" inside dpkg --verify sifter-agent sifter-control
ok "units are clean for systemd-analyze verify" quiet inside systemd-analyze verify --man=no sifter-agent.service sifter-control.service
for unit in sifter-agent sifter-control; do
    exposure=$(inside systemd-analyze security --no-pager --offline=yes "/usr/lib/systemd/system/$unit.service" | sed -n 's/.*Overall exposure level.*: \([0-9.]*\).*/\1/p')
    echo "   exposure of $unit: $exposure"
    ok "exposure of $unit is at most 1.6" awk "BEGIN { exit !($exposure > 0 && $exposure <= 1.6) }"
done
for program in sifter sifter-control; do
    subcommands=$(inside $program --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' | grep -vx help)
    ok "$program has subcommands" test "$(wc -w <<< "$subcommands")" -ge 3
    ok "each has a man page" inside ls /usr/share/man/man1/$program.1.gz $(printf " /usr/share/man/man1/$program-%s.1.gz" $subcommands)
    ok "there are completions for three shells" inside ls /usr/share/bash-completion/completions/$program \
        /usr/share/zsh/vendor-completions/_$program /usr/share/fish/vendor_completions.d/$program.fish
    ok "bash takes them" inside bash -c ". /usr/share/bash-completion/completions/$program && complete -p $program"
done
ok "licences are there" inside sh -c 'for name in agent control; do cd /usr/share/doc/sifter-$name && gzip -dc THIRD-PARTY.gz | grep -q "^    rustls " && test -f copyright || exit 1; done'
ok "documents that others link are there" inside sh -c 'for name in agent control; do cd /usr/share/doc/sifter-$name && for file in $(grep -oh "]([a-z]*[.]md" *.md | cut -c3- | sort -u); do test -f $file || exit 1; done; done'
ok "without a root the agent says what to do" inside sh -c 'sifter check-config 2>&1 | grep -q "add \[\[root\]\]"'

uncommented="sed 's/^#\\([a-z[]\\)/\\1/' /etc/sifter/agent.toml > /root/all.toml"
ok "every key of the commented configuration is known, and its certificate looked for" \
    inside sh -c "$uncommented && sifter check-config --config /root/all.toml --root /srv/images --listen 0.0.0.0:7430 2>&1 | grep '^sifter: configuration: tls.cert /etc/sifter/tls/agent.pem: '"

# --- First start ------------------------------------------------------------------------------
step "the agent starts as documented"
write /etc/sifter/agent.toml.d/10-site.toml << 'TOML'
system = "packaged"
metrics = "127.0.0.1:9180"

[[root]]
path = "/srv/images"
interval = "10m"
TOML
inside sh -c 'echo "# a line of the site" >> /etc/sifter/agent.toml'
ok "its configuration is good" inside sifter check-config
ok "systemctl enable --now waits for READY" inside systemctl enable --now sifter-agent
is "it is active" "$(property sifter-agent ActiveState)/$(property sifter-agent SubState)" active/running
is "it notifies" "$(property sifter-agent Type)" notify
# What root sees without the private image is what the agent's own user sees.
expected=$(inside setpriv --reuid=sifter --regid=sifter --clear-groups sifter scan --json /srv/images 2> /dev/null | wc -l) || true
ok "there are images to list" test "$expected" -gt 30
ok "it lists all of them, $expected" within 30 listed_is "$expected"
ok "its status line says so" within 15 inside sh -c "systemctl show -p StatusText sifter-agent | grep -q '$expected images in 1 root'"
is "its socket is for everybody" "$(inside stat -c '%U:%G %a' /run/sifter/agent.sock)" "sifter:sifter 666"
ok "it runs as sifter and without a capability" inside sh -c "grep -q '^CapEff:.0000000000000000$' /proc/$(pid sifter-agent)/status"
ok "what it may not read is a problem, with its path" inside sh -c "sifter status | grep -i 'permission.*/srv/images/private'"
metric() { inside http-get 9180 /metrics | tr -d '\r' | awk -v name="$1" '$1 == name { print $2 }'; }
is "and counted" "$(metric 'sifter_agent_problems{root="/srv/images",kind="PERMISSION_DENIED"}')" 1
inside useradd user
inside useradd --groups sifter-admin admin
as() { inside setpriv --reuid="$1" --regid="$1" --init-groups sifter ls --json | wc -l; }
is "any user is shown what everybody may read" "$(as user)" "$expected"

step "the unit lets the agent open directories as it would"
openat2='my ($path, $how) = ("/etc\0", pack("Q3", 0x80000, 0, 1)); exit(syscall(437, -100, $path, $how, 24) < 0)'
mapfile -t filters < <(inside grep -E '^(SystemCall|Restrict)' /usr/lib/systemd/system/sifter-agent.service)
ok "with openat2" inside systemd-run --pipe --wait --quiet "${filters[@]/#/--property=}" perl -e "$openat2"

step "a systemd that does not know openat2, as RHEL 8's"
printf '[Service]\nSystemCallFilter=~openat2\n' | write /etc/systemd/system/sifter-agent.service.d/older.conf
inside sh -c 'systemctl daemon-reload && systemctl stop sifter-agent && rm /var/lib/sifter/catalog.sqlite* && systemctl start sifter-agent'
ok "all images are found" within 30 listed_is "$expected"
inside rm -r /etc/systemd/system/sifter-agent.service.d
inside sh -c 'systemctl daemon-reload && systemctl restart sifter-agent'

step "grpcurl over the socket"
grpc() { inside grpcurl -plaintext -unix -authority localhost "$@"; }
says() { grpc "${@:2}" | grep -q "$1"; }
ok "list" says sifter.v1.ImageService /run/sifter/agent.sock list
ok "describe" says repository /run/sifter/agent.sock describe sifter.v1.Image
is "ListImages" "$(grpc -d '{"page_size": 5}' /run/sifter/agent.sock sifter.v1.ImageService/ListImages | grep -c '"path"')" 5
ok "health" says '"SERVING"' /run/sifter/agent.sock grpc.health.v1.Health/Check

step "the journal has fields"
journal() { inside journalctl -q -b --no-pager -u sifter-agent -o json --output-fields=MESSAGE,PRIORITY,SIFTER_ROOT,SIFTER_IMAGES,SIFTER_REQUEST_ID,SIFTER_METHOD,SYSLOG_IDENTIFIER "$@"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | tail -n 1; }
is "a root's scans are found by its path" "$(journal SIFTER_ROOT=/srv/images | field SIFTER_IMAGES)" "$expected"
is "with a priority" "$(journal SIFTER_ROOT=/srv/images | field PRIORITY)" 6
is "the message says the same" "$(journal SIFTER_ROOT=/srv/images | field MESSAGE | grep -o "^scanned root=/srv/images images=$expected ")" "scanned root=/srv/images images=$expected "
grpc -H 'x-request-id: asked-by-the-test' -d '{}' /run/sifter/agent.sock sifter.v1.ImageService/ListImages > /dev/null
ok "a call is found by its ID" within 10 inside sh -c "journalctl -q -b -u sifter-agent -o json SIFTER_REQUEST_ID=asked-by-the-test | grep -q '\"SIFTER_METHOD\":\"ListImages\"'"
is "under its own name" "$(journal SIFTER_ROOT=/srv/images | field SYSLOG_IDENTIFIER)" sifter

step "Landlock"
confined=$(inside sifter status --json | field confinement)
if [ "$confined" = CONFINEMENT_OFF ]; then
    echo "   not tried: $(inside sifter status | sed -n 's/^confined *//p')"
else
    is "the agent is confined" "$confined" CONFINEMENT_FULL
    ok "and says so" inside sh -c "journalctl -q -b -u sifter-agent | grep -q 'confined by Landlock'"
    inside mkdir -p /srv/extra /srv/later
    # put FILE SYSTEM: an image in a file system of its own.
    put_extra() { inside sh -c 'mount -t tmpfs -o mode=755 extra /srv/extra && cp /srv/images/pulled/ubuntu_22.04.sif /srv/extra/'; }
    put_extra
    write /etc/sifter/agent.toml.d/30-extra.toml << 'TOML'
[[root]]
path = "/srv/extra"
TOML
    before=$(pid sifter-agent)
    ok "a root is added: reload" inside systemctl reload sifter-agent
    ok "it says that this needs a restart" within 10 inside sh -c "journalctl -q -b -u sifter-agent SIFTER_ROOT=/srv/extra | grep -q 'only at a restart: Landlock'"
    is "and is the same process" "$(pid sifter-agent)" "$before"
    inside systemctl restart sifter-agent
    ok "restarted, it lists the new root" within 30 listed_is $((expected + 1))
    before=$(pid sifter-agent)
    inside umount /srv/extra
    put_extra
    ok "mounted anew, the agent is started anew" within 40 runs_anew sifter-agent "$before"
    ok "and reads it" within 30 inside sh -c "sifter status --json | grep -o '\"path\":\"/srv/extra\",\"state\":\"ROOT_STATE_OK\"'"
    is "the listing is whole" "$(listed)" $((expected + 1))
    inside rm /etc/sifter/agent.toml.d/30-extra.toml
    inside systemctl reload sifter-agent
    ok "a root that is removed leaves the listing at a reload" within 10 listed_is "$expected"
    inside umount /srv/extra
fi

step "grpcurl over mutual TLS"
# enroll WHAT NAME: in a directory of copies. The commands that it prints are run as they are; scp, to this machine itself.
enroll() {
    inside sh -ec 'mkdir -p /root/copies && cd /root/copies
        said=$(/usr/share/sifter-control/enroll.sh --dir /root/tls "$@")
        echo "$said" | sed -n -e "s/^  scp \(.*\) $2:\$/cp \1 ./p" -e "s/^  \(install\|rm\) /\1 /p" | sh -ex' sh "$@"
}
ok "an authority is made" enroll ca
ok "the control plane's key and certificate are made, and put where it says" enroll control other.test
ok "another's take their place" enroll control control.test
ok "the agent's, too" enroll agent agent.test
is "keys are for their services alone" "$(inside stat -c '%U:%G %a' /etc/sifter/tls/agent.key /etc/sifter-control/tls/control.key | tr '\n' ' ')" \
    "root:sifter 640 root:sifter-control 640 "
is "and no copy of one is left" "$(inside find /root/copies -name '*.key')" ""
write /etc/sifter/agent.toml.d/20-tls.toml << 'TOML'
listen = ["unix:/run/sifter/agent.sock", "0.0.0.0:7430"]

[tls]
cert = "/etc/sifter/tls/agent.pem"
key = "/etc/sifter/tls/agent.key"
client_ca = "/etc/sifter/tls/ca.pem"
allow = ["control.test"]
TOML
ok "the agent listens" inside systemctl restart sifter-agent
tls() { inside grpcurl -cacert /root/tls/ca.pem -cert "/root/tls/$1/control.pem" -key "/root/tls/$1/control.key" -servername agent.test "${@:2}"; }
listed_over_tls() { tls control.test -d '{"page_size": 5}' 127.0.0.1:7430 sifter.v1.ImageService/ListImages | grep -c '"path"'; }
is "ListImages" "$(listed_over_tls)" 5
refused() { ! "$@"; }
ok "a client that is not on the list is refused" refused tls other.test 127.0.0.1:7430 list
ok "so is plain text" refused inside grpcurl -plaintext -max-time 5 127.0.0.1:7430 list
for reason in not_allowed plain_text; do
    ok "$reason is counted" test "$(metric "sifter_agent_connections_refused_total{reason=\"$reason\"}")" -ge 1
done

step "the control plane answers the documented reply"
write /etc/sifter-control/config.toml.d/10-site.toml << 'TOML'
[[clusters]]
id = "here"
account = "1000000000000001"
login_nodes = ["unix:/run/sifter/agent.sock"]

[[clusters]]
id = "elsewhere"
account = "1000000000000001"
login_nodes = ["127.0.0.1:7430"]

[[clusters]]
id = "nowhere"
account = "1000000000000001"
login_nodes = ["127.0.0.1:1"]

[agent_tls]
ca = "/etc/sifter-control/tls/ca.pem"
cert = "/etc/sifter-control/tls/control.pem"
key = "/etc/sifter-control/tls/control.key"
server_name = "agent.test"
TOML
ok "systemctl enable --now waits for READY" inside systemctl enable --now sifter-control
answered() { inside http-get 8080 "$request" > "$work/reply" && grep -qF "$1" "$work/reply"; }
ok "as an ordinary user of the login node it refuses a listing that is less than all" answered '"Code":"ExecFail"'
ok "and says what mends it" grep -q admin_group "$work/reply"
write /etc/sifter-control/config.toml.d/20-partial.toml <<< '[agents]
partial_listings = "serve"'
inside systemctl restart sifter-control
ok "told to, it answers what it is shown" answered "\"TotalCount\":$expected"
inside rm /etc/sifter-control/config.toml.d/20-partial.toml
inside usermod -aG sifter-admin sifter-control
# An agent that was asked before takes note of it within a minute; here it was.
inside systemctl restart sifter-agent sifter-control
inside http-get 8080 "$request" > "$work/reply"
ok "200" grep -q '^HTTP/1.1 200' "$work/reply"
for part in "\"TotalCount\":$expected" '"PageSize":10' '"PageNumber":1' '"System":"packaged"' '"Type":"singularity"' '"RequestId":"'; do
    ok "the reply has $part" grep -qF "$part" "$work/reply"
done

inside http-get 8080 "${request/ClusterId=here/ClusterId=elsewhere}" > "$work/reply"
ok "the same over mutual TLS" grep -qF "\"TotalCount\":$expected" "$work/reply"
asked=$(field RequestId < "$work/reply")
inside http-get 8080 "${request/ClusterId=here/ClusterId=nowhere}" > "$work/reply"
ok "a login node that is not there is an error" grep -qF '"Code":"AgentError"' "$work/reply"
failed_as=$(field RequestId < "$work/reply")
entry() { inside journalctl -q -b --no-pager -o json -u "$@"; }
in_the_journal() { [ -n "$(entry sifter-control SIFTER_REQUEST_ID="$1")" ]; }
ok "a request is found in the journal by its ID" within 10 in_the_journal "$asked"
for part in SIFTER_CODE=OK SIFTER_STATUS=200 SIFTER_CLUSTER=elsewhere SIFTER_METHOD=GET PRIORITY=6 SYSLOG_IDENTIFIER=sifter-control; do
    is "with ${part%=*}" "$(entry sifter-control SIFTER_REQUEST_ID="$asked" | field "${part%=*}")" "${part#*=}"
done
is "its message says the same" "$(entry sifter-control SIFTER_REQUEST_ID="$asked" | field MESSAGE | grep -o "^answered request_id=$asked ")" "answered request_id=$asked "
is "the agent's call by the same ID" "$(entry sifter-agent SIFTER_REQUEST_ID="$asked" | field SIFTER_METHOD)" ListImages
ok "so is one that failed" within 10 in_the_journal "$failed_as"
is "with the login node" "$(entry sifter-control -p warning SIFTER_REQUEST_ID="$failed_as" | field SIFTER_NODE)" https://127.0.0.1:1
is "and its cluster" "$(entry sifter-control -p warning SIFTER_REQUEST_ID="$failed_as" | field SIFTER_CLUSTER)" nowhere
is "and the answer" "$(entry sifter-control SIFTER_REQUEST_ID="$failed_as" SIFTER_STATUS=406 | field SIFTER_CODE)" AgentError

step "signed requests"
inside install -m 600 /dev/stdin /etc/sifter-control/keys.toml << 'TOML'
[[key]]
access_key_id = "LTAI5tExample"
secret = "a long random text"
account_id = "1000000000000001"
user = "alice"
policies = ["AliyunEHPCReadOnlyAccess"]
TOML
write /etc/sifter-control/config.toml.d/20-auth.toml <<< '[auth]
keys = "credential:keys"'
inside install -D -m 644 /usr/share/doc/sifter-control/examples/keys.conf /etc/systemd/system/sifter-control.service.d/keys.conf
inside systemctl daemon-reload
ok "the control plane starts with the keys that only root can read" inside systemctl restart sifter-control
signed() {
    inside env ALIBABA_CLOUD_ACCESS_KEY_ID=LTAI5tExample ALIBABA_CLOUD_ACCESS_KEY_SECRET="$1" \
        sifter-control call ListContainerImages --endpoint http://127.0.0.1:8080 --cluster here > "$work/reply" 2>&1
}
ok "a signed request is answered" signed "a long random text"
ok "with the listing" grep -q " of $expected$" "$work/reply"
ok "one with another secret is not" eval '! signed wrong && grep -q SignatureDoesNotMatch "$work/reply"'
ok "nor one that nobody signed" answered '"Code":"MissingParameter"'
ok "what the unit is given can be checked as it is given" inside systemd-run --pipe --wait --quiet -p User=sifter-control -p LoadCredential=keys:/etc/sifter-control/keys.toml \
    sifter-control check-config
inside rm /etc/sifter-control/config.toml.d/20-auth.toml /etc/sifter-control/keys.toml /etc/systemd/system/sifter-control.service.d/keys.conf
inside systemctl daemon-reload
inside systemctl restart sifter-control

step "a certificate that has expired is named on both sides"
inside sh -c 'cd /root/tls && mkdir old && : > old/index && echo 01 > old/serial && printf "[ca]\ndefault_ca=x\n[x]\ndatabase=old/index\nserial=old/serial\nnew_certs_dir=old\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n" > old/ca.cnf &&
    printf "subjectAltName=DNS:agent.test\nextendedKeyUsage=serverAuth\n" > old/extensions &&
    openssl req -new -key agent.test/agent.key -subj /CN=agent.test -out old/agent.csr &&
    openssl ca -batch -notext -config old/ca.cnf -cert ca.pem -keyfile ca.key -in old/agent.csr -extfile old/extensions \
        -startdate 20240101000000Z -enddate 20250101000000Z -out old/agent.pem' 2> "$work/openssl.log" || cat "$work/openssl.log" >&2
# with FILE: the agent's certificate.
with() { inside install -m 640 -g sifter "$1" /etc/sifter/tls/agent.pem && inside systemctl reload sifter-agent; }
elsewhere() { inside http-get 8080 "${request/ClusterId=here/ClusterId=elsewhere}" > "$work/reply" && grep -qF "$1" "$work/reply"; }
with /root/tls/old/agent.pem
# Open connections of the control plane end with the process.
inside systemctl restart sifter-control
ok "the control plane answers AgentError" within 10 elsewhere '"Code":"AgentError"'
asked=$(field RequestId < "$work/reply")
ok "and says why" within 10 in_the_journal "$asked"
ok "in its log" inside sh -c "journalctl -q -b -u sifter-control SIFTER_REQUEST_ID=$asked | grep -q 'certificate expired'"
ok "the agent does, too" inside sh -c "journalctl -q -b -u sifter-agent SIFTER_KIND=refused_by_client | grep -q CertificateExpired"
ok "sifter doctor says what to do" inside sh -c "sifter doctor | grep -A1 '^FAILED *tls: the certificate has expired' | grep -q enroll.sh"
with /root/tls/agent.test/agent.pem
ok "renewed, the cluster is listed again" within 10 elsewhere "\"TotalCount\":$expected"
ok "sifter doctor has nothing to mend" inside setpriv --reuid=sifter --regid=sifter --init-groups sh -c 'sifter doctor || [ $? = 3 ]'

# --- Day by day -------------------------------------------------------------------------------
step "reload loses nothing"
for unit in sifter-agent sifter-control; do
    before=$(pid $unit)
    ok "systemctl reload $unit" inside systemctl reload $unit
    ok "$unit still answers after it" within 5 listed_is "$expected"
    is "$unit is the same process" "$(pid $unit)" "$before"
done

step "socket activation"
is "the socket unit is not enabled" "$(inside systemctl is-enabled sifter-agent.socket || true)" disabled
ok "it is clean for systemd-analyze verify" quiet inside systemd-analyze verify --man=no sifter-agent.socket
ok "the agent stops" inside systemctl stop sifter-agent
ok "the service manager takes the socket" inside systemctl enable --now sifter-agent.socket
is "which starts nothing by itself" "$(inside systemctl is-active sifter-agent || true)" inactive
is "the socket is for everybody" "$(inside stat -c '%U:%G %a' /run/sifter/agent.sock)" "sifter:sifter 666"
is "who connects starts the agent, and gets the whole listing" "$(listed)" "$expected"
is "the agent is active" "$(inside systemctl is-active sifter-agent)" active
ok "it says whose socket it is" inside sh -c "journalctl -q -b -u sifter-agent --no-pager | grep 'socket of the service manager' | grep -q grpc"
before=$(pid sifter-agent)
inside systemctl kill --signal=KILL --kill-whom=main sifter-agent
is "nobody is refused after kill -9" "$(listed)" "$expected"
ok "by a new process" runs_anew sifter-agent "$before"
ok "stopped, it leaves the socket" inside sh -c 'systemctl stop sifter-agent && test -S /run/sifter/agent.sock'
is "the next one starts it again" "$(listed)" "$expected"
is "as user, too" "$(as user)" "$expected"
ok "and back" inside sh -c 'systemctl disable --now sifter-agent.socket && systemctl restart sifter-agent'
ok "it binds by itself" within 10 listed_is "$expected"

step "kill -9: back at once, with the listing"
before=$(pid sifter-agent)
inside systemctl kill --signal=KILL --kill-whom=main sifter-agent
ok "systemd starts it anew" within 10 runs_anew sifter-agent "$before"
is "the first answer is the whole listing" "$(listed)" "$expected"

step "the capability is optional, and enough"
admin_sees() { [ "$(as admin)" = "$1" ]; }
inside install -D -m 644 /usr/share/doc/sifter-agent/examples/read-everything.conf /etc/systemd/system/sifter-agent.service.d/read-everything.conf
inside systemctl daemon-reload
inside systemctl restart sifter-agent
ok "with it, the private image is listed" within 30 listed_is $((expected + 1))
ok "to an admin, too" within 30 admin_sees $((expected + 1))
is "but not to any user" "$(as user)" "$expected"
# paths USER: what is listed; readable USER: those of all images that find finds for that user.
paths() { inside setpriv --reuid="$1" --regid="$1" --init-groups sifter ls --json | sed 's/.*"path":"\([^"]*\)".*/\1/' | sort; }
readable() {
    inside setpriv --reuid="$1" --regid="$1" --init-groups find /srv/images -readable 2> /dev/null | sort |
        comm -12 - <(paths admin)
}
# By a group that is not the user's first: only the host's database knows it.
inside groupadd lab
inside useradd --groups lab member
inside sh -c 'install -d -m 750 -g lab /srv/images/lab && install -m 640 -g lab /srv/images/pulled/ubuntu_22.04.sif /srv/images/lab/'
ok "what a group may read is found" within 30 listed_is $((expected + 2))
is "its members are shown it" "$(as member)" $((expected + 1))
is "and nobody else is" "$(as user)" "$expected"
inside sh -c 'install -d -m 700 -o member /srv/images/own && install -m 600 -o member /srv/images/pulled/ubuntu_22.04.sif /srv/images/own/'
ok "so is what only its owner may read" within 30 listed_is $((expected + 3))
for name in user member; do
    ok "find finds images for $name" test "$(readable $name | wc -l)" -ge "$expected"
    is "$name is shown what find finds" "$(paths $name)" "$(readable $name)"
done
is "the owner of a private image sees it" "$(as member)" $((expected + 2))
inside rm -r /srv/images/own
inside rm -r /srv/images/lab
ok "gone, it is not listed" within 30 listed_is $((expected + 1))
ok "and it is the only one" inside sh -c "grep -q '^CapEff:.0000000000000004$' /proc/$(pid sifter-agent)/status"

step "no error in the journal"
is "priority err or worse" "$(inside journalctl -q -p err -b --no-pager UNIT=sifter-agent.service + UNIT=sifter-control.service + _SYSTEMD_UNIT=sifter-agent.service + _SYSTEMD_UNIT=sifter-control.service)" ""
is "ERROR in the services' own words" "$(inside journalctl -q -b --no-pager -u sifter-agent -u sifter-control | grep -w ERROR || true)" ""

step "a wrong configuration is named, and not started again and again"
for unit in sifter-agent sifter-control; do
    directory=/etc/sifter/agent.toml.d
    [ $unit = sifter-agent ] || directory=/etc/sifter-control/config.toml.d
    inside sh -c "echo 'no_such_key = 1' > $directory/90-wrong.toml"
    ok "reload of $unit changes nothing" within 10 inside sh -c "systemctl reload $unit; systemctl is-active $unit"
    ok "$unit does not start" inside sh -c "! systemctl restart $unit"
    sleep 4 # longer than RestartSec=
    is "and has failed" "$(property $unit ActiveState) after $(property $unit NRestarts) restarts" "failed after 0 restarts"
    ok "the journal says where" inside sh -c "journalctl -q -b -u $unit --no-pager | grep -A9 '$directory/90-wrong.toml' | grep -q no_such_key"
    inside rm $directory/90-wrong.toml
    ok "mended, it starts" inside systemctl start $unit
done

step "an agent that is stuck is started anew"
# The unit's own time is a minute: no need to wait for it here.
inside sh -c 'printf "[Service]\nWatchdogSec=3s\n" > /etc/systemd/system/sifter-agent.service.d/hurry.conf'
inside systemctl daemon-reload
inside systemctl restart sifter-agent
before=$(pid sifter-agent)
sleep 5 # longer than the watchdog: an agent that answers is left alone
is "one that answers is left alone" "$(pid sifter-agent)" "$before"
inside systemctl kill --signal=STOP --kill-whom=main sifter-agent
ok "one that does not is replaced" within 20 runs_anew sifter-agent "$before"
ok "by the watchdog" inside sh -c "journalctl -q -b -u sifter-agent --no-pager | grep -qi 'watchdog timeout'"
is "its first answer is the whole listing" "$(listed)" $((expected + 1))
inside sh -c 'mkdir -p /etc/systemd/system/sifter-control.service.d && printf "[Service]\nWatchdogSec=3s\n" > /etc/systemd/system/sifter-control.service.d/hurry.conf'
inside systemctl daemon-reload
inside systemctl restart sifter-control
before=$(pid sifter-control)
inside systemctl kill --signal=STOP --kill-whom=main sifter-control
ok "so is a control plane" within 20 runs_anew sifter-control "$before"
inside http-get 8080 "$request" > "$work/reply"
ok "it answers" grep -q '^HTTP/1.1 200' "$work/reply"

# --- Upgrade, removal, purge ------------------------------------------------------------------
step "upgrade"
cursor=$(inside journalctl -q -b -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
before=$(pid sifter-agent)
before_control=$(pid sifter-control)
ok "dpkg asks nothing" inside dpkg -i /root/newer-agent.deb /root/newer-control.deb
ok "the agent runs anew" within 10 runs_anew sifter-agent "$before"
ok "the control plane runs anew" within 10 runs_anew sifter-control "$before_control"
is "with the listing at once" "$(listed)" $((expected + 1))
ok "the site's line in agent.toml is kept" inside grep -q '^# a line of the site' /etc/sifter/agent.toml
ok "the drop-in is kept" inside test -f /etc/sifter/agent.toml.d/10-site.toml
ok "the clusters are kept" inside grep -q '^id = "here"' /etc/sifter-control/config.toml.d/10-site.toml
ok "a configuration that the site has left alone is the newer one" inside grep -q '^# newer words' /etc/sifter-control/config.toml
is "without an error in the journal" "$(inside journalctl -q -p err --no-pager --after-cursor="$cursor" UNIT=sifter-agent.service + UNIT=sifter-control.service + _SYSTEMD_UNIT=sifter-agent.service + _SYSTEMD_UNIT=sifter-control.service)" ""
ok "it stays enabled" inside systemctl is-enabled sifter-agent sifter-control

step "removal keeps configuration and catalogue"
ok "dpkg --remove" inside dpkg --remove sifter-agent sifter-control
is "both are stopped" "$(inside sh -c 'grep -l sifter /proc/[0-9]*/comm' || true)" ""
ok "configuration and catalogue are kept" inside sh -c 'ls /etc/sifter/agent.toml /etc/sifter-control/config.toml /etc/sifter-control/config.toml.d/10-site.toml /var/lib/sifter/catalog.sqlite'
ok "installed again, it is as it was" inside dpkg -i /root/newer-agent.deb
ok "and starts" inside systemctl start sifter-agent
is "with its listing" "$(listed)" $((expected + 1))

step "purge"
inside rm -r /etc/sifter/agent.toml.d/10-site.toml /etc/sifter/agent.toml.d/20-tls.toml /etc/sifter/tls /etc/sifter-control/config.toml.d/10-site.toml /etc/sifter-control/tls \
    /etc/systemd/system/sifter-agent.service.d /etc/systemd/system/sifter-control.service.d
ok "dpkg --purge" inside dpkg --purge sifter-agent sifter-control
is "nothing is left" "$(inside find / -xdev -name '*sifter*' -not -path '/srv/*' -not -path '/proc/*' -not -path '/var/log/*' -not -path "/root/*" -not -path '/var/lib/systemd/*' -not -path '/run/*' -not -path '/var/mail/*')" ""
is "systemd has no failed unit of ours" "$(inside systemctl --no-legend --failed list-units 'sifter*')" ""

summary
