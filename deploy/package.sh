#!/usr/bin/env bash
# Builds the packages sifter-agent and sifter-control, as .deb and as .rpm, from release binaries.
#
#     deploy/package.sh [deb] [rpm]                (default: both)
#
#     --bin DIR        take the binaries from there instead of building them
#     --out DIR        where the packages go (default: target/package)
#     --version V      instead of the workspace's
#     --release N      revision of the package (default: 1)
#
# They run where the C library is as new as on the machine that built them, or newer: build on the oldest
# distribution that is to run them. Same sources, same toolchain: same packages, byte for byte (the
# clock is SOURCE_DATE_EPOCH, by default that of the last commit).
set -euo pipefail
usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
. "$top/.ci/tools.sh"
target=${CARGO_TARGET_DIR:-$top/target}
maintainer=${SIFTER_MAINTAINER:-Sifter maintainers <maintainers@sifter.invalid>}
bin='' out='' version='' release=1 kinds=()
while [ $# -gt 0 ]; do
    case $1 in
        deb | rpm) kinds+=("$1") && shift ;;
        --bin) bin=$(realpath "$2") && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --version) version=$2 && shift 2 ;;
        --release) release=$2 && shift 2 ;;
        -h | --help) usage && exit ;;
        *) echo "unknown: $1" >&2 && usage >&2 && exit 2 ;;
    esac
done
[ ${#kinds[@]} -gt 0 ] || kinds=(deb rpm)
out=${out:-$target/package}
mkdir -p "$out"
out=$(cd "$out" && pwd)

cd "$top"
need strip binutils binutils "to strip the binaries"
for kind in "${kinds[@]}"; do
    case $kind in
        deb) need dpkg-deb dpkg dpkg "to build .deb packages" ;;
        rpm) need rpmbuild rpm rpm-build "to build .rpm packages" ;;
    esac
done
version=${version:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
# 0.2.0-rc.1 comes before 0.2.0: both kinds of packages say that with a tilde.
version=${version//-/\~}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
export SOURCE_DATE_EPOCH
if [ -z "$bin" ]; then
    need_build_tools
    say "building (release)"
    cargo build --locked --release -p sifter-agent -p sifter-control
    bin=$target/release
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/sifter-package.XXXXXX")
trap 'rm -rf "$work"' EXIT

# put MODE SOURCE DESTINATION: like install, with the directories above.
put() { install -D -m "$1" "$2" "$3"; }
# zip FILE: without name and time, so that it comes out alike each time.
zip() { gzip -9 -n "$1"; }

# stage KIND PACKAGE PROGRAM ROOT: everything the package puts on a host.
stage() {
    local kind=$1 package=$2 program=$3 root=$4 documents file
    documents=$root/usr/share/doc/$package
    put 755 "$bin/$program" "$root/usr/bin/$program"
    strip --strip-unneeded --remove-section=.comment "$root/usr/bin/$program"
    put 644 "$here/systemd/$package.service" "$root/usr/lib/systemd/system/$package.service"
    "$bin/$program" generate man "$root/usr/share/man/man1"
    for file in "$root"/usr/share/man/man1/*; do zip "$file"; done
    "$bin/$program" generate completions "$work/completions"
    put 644 "$work/completions/$program.bash" "$root/usr/share/bash-completion/completions/$program"
    put 644 "$work/completions/$program.fish" "$root/usr/share/fish/vendor_completions.d/$program.fish"
    local zsh=site-functions
    [ "$kind" = rpm ] || zsh=vendor-completions
    put 644 "$work/completions/_$program" "$root/usr/share/zsh/$zsh/_$program"
    put 644 "$here/sysusers.d/$package.conf" "$root/usr/lib/sysusers.d/$package.conf"
    case $package in
        sifter-agent)
            put 644 "$here/systemd/$package.socket" "$root/usr/lib/systemd/system/$package.socket"
            put 644 "$here/tmpfiles.d/$package.conf" "$root/usr/lib/tmpfiles.d/$package.conf"
            put 644 "$here/etc/sifter/agent.toml" "$root/etc/sifter/agent.toml"
            install -d -m 755 "$root/etc/sifter/agent.toml.d"
            ;;
        sifter-control)
            put 644 "$here/etc/sifter-control/config.toml" "$root/etc/sifter-control/config.toml"
            install -d -m 755 "$root/etc/sifter-control/config.toml.d"
            for file in prometheus.yml sifter.rules.yml grafana-sifter.json; do
                put 644 "$here/monitoring/$file" "$documents/examples/monitoring/$file"
            done
            # Where the site's authority is, as a rule.
            put 755 "$here/enroll.sh" "$root/usr/share/sifter-control/enroll.sh"
            ;;
    esac
    for file in "$here/examples/$package"/*; do put 644 "$file" "$documents/examples/$(basename "$file")"; done
    for file in docs/*.md; do put 644 "$file" "$documents/$(basename "$file")"; done
    if [ ! -f "$work/$package.third-party" ]; then
        "$here/third-party.sh" "$package" > "$work/$package.third-party"
    fi
    if [ "$kind" = rpm ]; then
        put 644 LICENSE "$root/usr/share/licenses/$package/LICENSE"
        put 644 "$work/$package.third-party" "$root/usr/share/licenses/$package/THIRD-PARTY"
    else
        put 644 "$here/debian/copyright" "$documents/copyright"
        put 644 "$work/$package.third-party" "$documents/THIRD-PARTY"
        zip "$documents/THIRD-PARTY"
        changelog > "$documents/changelog.Debian"
        zip "$documents/changelog.Debian"
    fi
}

changelog() {
    printf 'sifter (%s-%s) unstable; urgency=medium\n\n  * Release %s.\n\n -- %s  %s\n' "$version" "$release" "$version" \
        "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
}

# The newest version of the C library that a symbol of the program asks for.
libc_needed() { objdump -T "$1" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -n 1; }

build_deb() {
    local package=$1 program=$2 root=$work/deb/$1 architecture file depends
    architecture=$(dpkg --print-architecture)
    stage deb "$package" "$program" "$root"
    depends="libc6 (>= $(libc_needed "$root/usr/bin/$program")), libgcc-s1 (>= 4.2) | libgcc1 (>= 1:4.2)"
    install -d "$root/DEBIAN"
    sed -e "s/@VERSION@/$version-$release/" -e "s/@ARCH@/$architecture/" -e "s/@MAINTAINER@/$maintainer/" \
        -e "s/@DEPENDS@/$depends/" -e "s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f 1)/" \
        "$here/debian/$package.control" > "$root/DEBIAN/control"
    for file in postinst prerm postrm; do put 755 "$here/debian/$package.$file" "$root/DEBIAN/$file"; done
    (cd "$root" && find etc -type f -printf '/%p\n' | LC_ALL=C sort > DEBIAN/conffiles)
    (cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --threads-max=2 --build "$root" \
        "$out/${package}_${version}-${release}_$architecture.deb" 2> /dev/null ||
        dpkg-deb --root-owner-group -Zxz --build "$root" "$out/${package}_${version}-${release}_$architecture.deb"
}

build_rpm() {
    stage rpm sifter-agent sifter "$work/rpm/sifter-agent"
    stage rpm sifter-control sifter-control "$work/rpm/sifter-control"
    {
        cat "$here/rpm/sifter.spec"
        printf '\n%%changelog\n* %s %s - %s-%s\n- Release %s.\n' "$(LC_ALL=C date -u '+%a %b %d %Y' -d "@$SOURCE_DATE_EPOCH")" \
            "$maintainer" "$version" "$release" "$version"
    } > "$work/sifter.spec"
    # zstd is read by every release of RHEL from 8 on.
    rpmbuild -bb --quiet --define "_topdir $work/rpmbuild" --define "_rpmdir $out" \
        --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" --define "_binary_payload w19.zstdio" \
        --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
        --define "_buildhost sifter" --define "packager $maintainer" \
        --define "sifter_version $version" --define "sifter_release $release" \
        --define "staged $work/rpm" "$work/sifter.spec"
}

umask 022
for kind in "${kinds[@]}"; do
    say "packaging: $kind"
    case $kind in
        deb)
            build_deb sifter-agent sifter
            build_deb sifter-control sifter-control
            ;;
        rpm) build_rpm ;;
    esac
done
ls -l "$out"
