#!/usr/bin/env bash
# Installs the .rpm packages with rpm into a system that boots a real systemd, and holds their scriptlets to
# what docs/install.md promises: install, upgrade, erase. The system is a Debian with rpm and with the presets
# of RHEL, as no RHEL can be made on a Debian host; libraries and SELinux are not tried.
#
#     tests/packaging/rpm.sh [PACKAGES]     (default: target/package, as deploy/package.sh leaves them)
#
# Needs what nspawn.sh needs. SIFTER_PACKAGE_BIN: the binaries to make the newer release of (default: target/debug).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top"
. .ci/tools.sh
. tests/packaging/machine.sh
exec < /dev/null

if [ "$(id -u)" != 0 ] || [ ! -d /sys/fs/cgroup ] || ! command -v apt-get > /dev/null; then
    message="SKIPPED: the .rpm packages were not tried: this needs root on a Debian host"
    [ -z "${CI:-}" ] || die "$message"
    printf '\n%s\n\n' "$message" >&2
    exit 0
fi
need systemd-nspawn systemd-container systemd-container "to boot a system"
need debootstrap debootstrap debootstrap "to make a Debian system"
need zstd zstd zstd "to cache it"

target=${CARGO_TARGET_DIR:-$top/target}
cache=${SIFTER_NSPAWN_CACHE:-$target/nspawn}
work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-rpm.XXXXXX")
root=$work/debian
extra=rpm
trap 'unfinished; machine_stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

packages=${1:-$target/package}
deploy/package.sh rpm --release 99 --out "$work/newer" --bin "${SIFTER_PACKAGE_BIN:-$target/debug}" > "$work/package.log" 2>&1 ||
    { cat "$work/package.log" >&2 && die "the newer packages cannot be built"; }

say "a system with rpm"
machine_unpack
install -d "$root/srv/images"
cp -r tests/images/. "$root/srv/images/"
chmod -R a+rX "$root/srv/images"
for name in agent control; do
    cp "$packages"/sifter-$name-*.rpm "$root/root/$name.rpm"
    cp "$work"/newer/sifter-$name-*.rpm "$root/root/newer-$name.rpm"
done
# RHEL's own policy: nothing is enabled because it was installed.
install -d "$root/usr/lib/systemd/system-preset"
echo 'disable *' > "$root/usr/lib/systemd/system-preset/99-default-disable.preset"
say "boot (at $SECONDS s)"
machine_boot

pid() { inside systemctl show --value -p MainPID "$1"; }
listed() { inside sifter ls --json | wc -l; }
listed_is() { [ "$(listed)" = "$1" ]; }
runs_anew() { [ "$(pid "$1")" != "$2" ] && [ "$(pid "$1")" != 0 ]; }
# Debian's libraries are not in rpm's database.
rpm() { inside rpm --nodeps "$@"; }
enabled() { inside systemctl is-enabled "$1" 2> /dev/null || true; }

step "install"
ok "rpm -i" rpm -i /root/agent.rpm /root/control.rpm
for unit in sifter-agent.service sifter-agent.socket sifter-control.service; do
    is "$unit is not enabled" "$(enabled $unit)" disabled
done
is "nothing is started" "$(inside systemctl is-active sifter-agent sifter-control | sort -u)" inactive
is "the agent's user" "$(inside id -un sifter)" sifter
is "the control plane's user" "$(inside id -un sifter-control)" sifter-control
is "the catalogue's directory" "$(inside stat -c '%U:%G %a' /var/lib/sifter)" "sifter:sifter 750"
for program in sifter sifter-control; do
    ok "$program has man pages, and completions for three shells" inside ls /usr/share/man/man1/$program.1.gz \
        /usr/share/bash-completion/completions/$program /usr/share/zsh/site-functions/_$program \
        /usr/share/fish/vendor_completions.d/$program.fish
done
ok "rpm finds no file changed" quiet rpm -V sifter-agent sifter-control
ok "units are clean" quiet inside systemd-analyze verify --man=no sifter-agent.service sifter-agent.socket sifter-control.service

step "start"
write /etc/sifter/agent.toml.d/10-site.toml << 'TOML'
system = "packaged"
[[root]]
path = "/srv/images"
TOML
inside sh -c 'echo "# a line of the site" >> /etc/sifter/agent.toml'
# The socket first: it is refused where the agent has bound by itself.
ok "the service manager takes the socket" inside systemctl enable --now sifter-agent.socket
ok "systemctl enable --now waits for READY" inside systemctl enable --now sifter-agent sifter-control
expected=$(find tests/images -name '*.sif' -type f | wc -l)
more_than() { [ "$(listed)" -ge "$1" ]; }
ok "it lists the images" within 30 more_than "$expected"
all=$(listed)

step "upgrade"
before=$(pid sifter-agent)
before_control=$(pid sifter-control)
ok "rpm -U" rpm -U /root/newer-agent.rpm /root/newer-control.rpm
is "it is the newer release" "$(inside rpm -q --qf '%{RELEASE}' sifter-agent)" 99
ok "the agent runs anew" within 10 runs_anew sifter-agent "$before"
ok "the control plane runs anew" within 10 runs_anew sifter-control "$before_control"
is "with the listing at once" "$(listed)" "$all"
is "units stay enabled" "$(enabled sifter-agent.service) $(enabled sifter-agent.socket) $(enabled sifter-control.service)" "enabled enabled enabled"
ok "the site's line is kept" inside grep -q '^# a line of the site' /etc/sifter/agent.toml
ok "the drop-in is kept" inside test -f /etc/sifter/agent.toml.d/10-site.toml

step "erase"
ok "rpm -e" rpm -e sifter-agent sifter-control
is "no process is left" "$(inside sh -c 'grep -l sifter /proc/[0-9]*/comm' || true)" ""
is "no unit is left" "$(inside sh -c 'systemctl --no-legend list-units --all "sifter*"; find /etc/systemd /usr/lib/systemd -name "sifter*"')" ""
ok "the catalogue is kept" inside test -f /var/lib/sifter/catalog.sqlite
ok "a changed configuration is kept aside" inside grep -q '^# a line of the site' /etc/sifter/agent.toml.rpmsave
ok "the drop-in is kept" inside test -f /etc/sifter/agent.toml.d/10-site.toml
is "nothing else is left" "$(inside find /usr /etc -name '*sifter*' -not -path '/etc/sifter*' -not -name 'passwd*' | sort)" ""
ok "installed again, it is as it was" rpm -i /root/newer-agent.rpm
inside mv /etc/sifter/agent.toml.rpmsave /etc/sifter/agent.toml
ok "and starts" inside systemctl start sifter-agent
is "with its listing" "$(listed)" "$all"

summary
