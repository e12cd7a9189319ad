#!/usr/bin/env bash
# Inside the chroot, as root: apptainer and what it needs, a mirror setting for loopback, a plain user.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# A snapshot mirror may serve an index past its date.
apt="apt-get -q -o Acquire::Check-Valid-Until=false"
$apt update > /srv/apt.log
$apt install -y --no-install-recommends apptainer gocryptfs fuse3 squashfs-tools squashfuse \
    e2fsprogs python3 busybox-static gnupg gpg-agent openssl uidmap >> /srv/apt.log

mkdir -p /etc/containers
for host in docker.io quay.io nvcr.io; do
    printf '[[registry]]\nlocation = "%s"\n[[registry.mirror]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n\n' "$host"
done > /etc/containers/registries.conf

id builder > /dev/null 2>&1 || useradd --uid 1000 --create-home builder
rm -rf /srv/sifter
mkdir -p /srv/sifter/images
chown -R builder: /srv/sifter
chmod 666 /dev/fuse
setpriv --reuid builder --regid builder --init-groups \
    bash -c 'cd /srv/sifter/images && bash /recipes/make.sh /recipes && python3 /recipes/truth.py .'
