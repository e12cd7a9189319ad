#!/usr/bin/env bash
# Builds all images of this directory from scratch, with the real apptainer, in a Debian sid chroot:
#
#     tests/images/build.sh [OUT]      (as root, on Debian; default OUT: this directory)
#
# Network: the Debian mirror only. Every image source is local or served on loopback. WORK keeps the
# chroot for a second run. Identifiers, times and keys differ on every run, so truth.json is written
# with the images and belongs to them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here}
mirror=${MIRROR:-}

[ "$(id -u)" = 0 ] || { echo "build.sh: must run as root (debootstrap, mounts)" >&2; exit 1; }
command -v debootstrap > /dev/null || { echo "build.sh: needs debootstrap: apt-get install debootstrap" >&2; exit 1; }
[ -e /dev/fuse ] || { echo "build.sh: needs /dev/fuse (encrypted images): modprobe fuse" >&2; exit 1; }

if [ -n "${WORK:-}" ]; then
    work=$WORK
    mkdir -p "$work"
else
    work=$(mktemp -d /tmp/sifter-images.XXXXXX)
    trap 'rm -rf --one-file-system "$work"' EXIT
fi
chroot=$work/sid
if [ ! -e "$chroot/etc/debian_version" ]; then
    debootstrap --variant=minbase --include=ca-certificates sid "$chroot" ${mirror:+"$mirror"} > "$work/debootstrap.log"
fi
mkdir -p "$chroot/recipes"
cp "$here"/recipes/* "$chroot/recipes/"
cp /etc/resolv.conf "$chroot/etc/resolv.conf"

# The mounts live in a namespace of their own: they are gone with the script, however it ends.
# pivot_root and not chroot: the kernel refuses user namespaces, which %post needs, to a chrooted process.
unshare --mount bash -euo pipefail -c '
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount --make-rslave "$1/dev"
    mkdir -p "$1/.outside"
    cd "$1"
    pivot_root . .outside
    umount --lazy /.outside
    exec env -i PATH="$PATH" /bin/bash /recipes/prepare.sh
' - "$chroot"

mkdir -p "$out"
for group in pulled built archive signed encrypted formats depot cache nextflow; do
    rm -rf "${out:?}/$group"
done
cp -R "$chroot/srv/sifter/images/." "$out/"
rm "$out/made.tsv"
# Data, not programs: apptainer makes them executable.
find "$out" -path '*/sandbox' -prune -o -path "$out/recipes" -prune -o -type f ! -name '*.sh' -exec chmod 644 {} +
# Git keeps no empty directories; a sandbox is recognised without them.
find "$out/formats/sandbox" -type d -empty -delete
du -sh --apparent-size "$out"
