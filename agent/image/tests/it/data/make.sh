#!/bin/sh
# Makes the small file systems of the tests: the same container with each compressor, as ext2, ext3
# and ext4, and a tree that is none. Needs squashfs-tools and e2fsprogs 1.47.
set -eu
cd "$(dirname "$0")"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/box/.singularity.d/bootstrap_history" "$root/box/many" "$root/plain/bin"
cat > "$root/box/.singularity.d/labels.json" <<'JSON'
{
	"Author": "someone",
	"org.label-schema.usage.singularity.deffile.bootstrap": "docker",
	"org.label-schema.usage.singularity.deffile.from": "alpine:3.9"
}
JSON
printf 'Bootstrap: docker\nFrom: alpine:3.9\n\n%%post\n    true\n' > "$root/box/.singularity.d/Singularity"
printf 'bootstrap: docker\nfrom: alpine:3.8\n' > "$root/box/.singularity.d/bootstrap_history/Singularity0"
# A link where a file is looked for, and one in place of a directory on the way.
ln -s /etc/passwd "$root/box/.singularity.d/runscript"
ln -s .singularity.d "$root/box/link"
ln -s Singularity "$root/box/.singularity.d/alias"
# A directory of more than one metadata block, and a file of several data blocks without a fragment.
for n in $(seq 400); do : > "$root/box/many/a-file-with-a-rather-long-name-so-that-blocks-fill-$n"; done
yes 'a line of a large file' | head -c 40960 > "$root/box/large"
echo plain > "$root/plain/bin/sh"

for compressor in gzip xz zstd lz4 lzo lzma; do
    rm -f "box-$compressor.squashfs"
    mksquashfs "$root/box" "box-$compressor.squashfs" -comp "$compressor" -b 8192 -noappend -all-root -no-xattrs \
        -mkfs-time 1500000000 -all-time 1500000000 -no-progress -quiet -nopad
done
rm -f box-stored.squashfs plain.squashfs
mksquashfs "$root/box" box-stored.squashfs -noI -noD -noF -b 8192 -noappend -all-root -no-xattrs \
    -mkfs-time 1500000000 -all-time 1500000000 -no-progress -quiet -nopad
mksquashfs "$root/plain" plain.squashfs -noappend -all-root -no-xattrs \
    -mkfs-time 1500000000 -all-time 1500000000 -no-progress -quiet -nopad
for kind in ext2 ext3 ext4; do
    rm -f "box.$kind"
    size=512
    [ "$kind" = ext2 ] || size=2048
    mke2fs -q -t "$kind" -b 1024 -N 512 -d "$root/box" -U 00000000-0000-4000-8000-000000000001 \
        -E hash_seed=00000000-0000-4000-8000-000000000002 "box.$kind" "$size"
done
rm -f plain.ext2
mke2fs -q -t ext2 -b 1024 -N 32 -d "$root/plain" plain.ext2 64
# mke2fs leaves the last free blocks out of a new file.
truncate -s 64K plain.ext2
