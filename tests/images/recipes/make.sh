#!/usr/bin/env bash
# Makes every image with the real apptainer. Runs as an unprivileged user (where %post works) inside
# the chroot that ../build.sh prepares; the images land in the current directory and a line for each
# in made.tsv: path, how it was made, the reference that was really pulled (or -).
set -euo pipefail

recipes=$1
export GNUPGHOME=$PWD/../gnupg HOME=$PWD/../home APPTAINER_CACHEDIR=$PWD/../cache APPTAINER_NOHTTPS=1
mkdir -p "$HOME" pulled built archive signed encrypted formats depot cache/oci-tmp nextflow
rm -rf "$APPTAINER_CACHEDIR"
: > made.tsv

log=../make.log
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> made.tsv; printf '%s\n' "$1"; }
quiet() { "$@" >> "$log" 2>&1 || { tail -20 "$log" >&2; echo "failed: $*" >&2; exit 1; }; }

# pull PATH REFERENCE
pull() {
    quiet apptainer pull --force "$1" "$2"
    note "$1" "apptainer pull $2" "$2"
}
# build PATH SOURCE [OPTION…]: busybox is bound over the stand-in's empty /bin/busybox, so that %post runs.
build() {
    local path=$1 source=$2
    shift 2
    quiet apptainer build --force --bind /usr/bin/busybox:/bin/busybox "$@" "$path" "$source"
    note "$path" "apptainer build ${*:+${*//"$GNUPGHOME"\//} }$(basename "$path") ${source#"$recipes"/}" -
}

python3 "$recipes/stand-in.py" serve "$PWD/built/tools.sif" &
registry=$!
trap 'kill $registry' EXIT
until (exec 3<> /dev/tcp/127.0.0.1/5000) 2> /dev/null; do kill -0 $registry; done

# Pulled: what `apptainer pull` writes under its default file name, and under names of a site's own.
pull pulled/ubuntu_22.04.sif docker://ubuntu:22.04
pull pulled/alpine_latest.sif docker://alpine
pull pulled/r-ver_4.4.1.sif docker://rocker/r-ver:4.4.1
pull pulled/fastqc_0.12.1--hdfd78af_0.sif docker://quay.io/biocontainers/fastqc:0.12.1--hdfd78af_0
pull pulled/pytorch_24.05-py3.sif docker://nvcr.io/nvidia/pytorch:24.05-py3
pull pulled/site-tool_1.2.sif docker://127.0.0.1:5000/team/tools/site-tool:1.2
digest=$(python3 "$recipes/stand-in.py" digest library/busybox 1.37.0)
pull "pulled/busybox@${digest/:/_}.sif" "docker://busybox@$digest"
pull my-favourite.simg docker://alpine:3.20
pull depot/multiqc:1.25--pyhdfd78af_0 docker://quay.io/biocontainers/multiqc:1.25--pyhdfd78af_0
pull nextflow/quay.io-biocontainers-bwa-0.7.18--he4a0461_1.img docker://quay.io/biocontainers/bwa:0.7.18--he4a0461_1

# The same manifest under a second name comes out of the cache: the metadata keeps the first one.
pull pulled/cached-second-name.sif docker://127.0.0.1:5000/library/alpine:3.20
cached=$(find "$APPTAINER_CACHEDIR/cache/oci-tmp" -type f -size -60k | LC_ALL=C sort | head -n 1)
cp "$cached" cache/oci-tmp/
note "cache/oci-tmp/$(basename "$cached")" "the file apptainer keeps in its cache, named by hash" -

# Built from definitions.
build built/tools.sif "$recipes/tools.def"
build built/apps.sif "$recipes/apps.def"
build built/multistage.sif "$recipes/multistage.def"
build built/arguments.sif "$recipes/arguments.def" --build-arg TAG=3.20
build built/registry-namespace.sif "$recipes/registry-namespace.def"
build built/scratch.sif "$recipes/scratch.def"
build built/localimage.sif "$recipes/localimage.def"
build formats/sandbox docker://alpine:3.20 --sandbox
build built/from-sandbox.sif formats/sandbox

# From archives, from a library and over oras.
python3 "$recipes/stand-in.py" oci-archive alpine.oci.tar
build archive/oci.sif oci-archive:alpine.oci.tar
rm alpine.oci.tar
quiet apptainer pull --force --allow-unsigned --library http://127.0.0.1:5000 pulled/tools_2.1.sif library://sifter/tests/tools:2.1
note pulled/tools_2.1.sif "apptainer pull library://sifter/tests/tools:2.1 (byte for byte built/tools.sif)" library://sifter/tests/tools:2.1
build built/library.sif "$recipes/library.def" --library http://127.0.0.1:5000
quiet apptainer push built/tools.sif oras://127.0.0.1:5000/team/tools-sif:2.1
pull pulled/tools-sif_2.1.sif oras://127.0.0.1:5000/team/tools-sif:2.1

# Compressors.
build formats/xz.sif docker://alpine:3.20 --mksquashfs-args "-comp xz"
build formats/zstd.sif docker://alpine:3.20 --mksquashfs-args "-comp zstd"

# Signed with a PGP key, with two, and with a plain key (DSSE). The public keys stay with the images.

rm -rf "$GNUPGHOME"
mkdir -m 700 "$GNUPGHOME"
mkdir -p signed/keys
for who in first second; do
    quiet gpg --batch --passphrase "" --quick-generate-key "Sifter $who <$who@example.org>" rsa2048 sign never
    fingerprint=$(gpg --batch --with-colons --list-keys "$who@example.org" | awk -F: '/^fpr/{print $10; exit}')
    gpg --batch --armor --export-secret-keys "$fingerprint" > "$GNUPGHOME/$who.asc"
    gpg --batch --armor --export "$fingerprint" > "signed/keys/$who.asc"
    quiet apptainer key import "$GNUPGHOME/$who.asc" < /dev/null
done
cp pulled/alpine_latest.sif signed/pgp.sif
quiet apptainer sign --keyidx 0 signed/pgp.sif
note signed/pgp.sif "apptainer sign --keyidx 0 of pulled/alpine_latest.sif" docker://alpine
cp signed/pgp.sif signed/twice.sif
quiet apptainer sign --keyidx 1 signed/twice.sif
note signed/twice.sif "apptainer sign --keyidx 1 of signed/pgp.sif" docker://alpine
quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$GNUPGHOME/ec.pem"
quiet openssl pkey -in "$GNUPGHOME/ec.pem" -pubout -out signed/keys/ec.pem
cp pulled/alpine_latest.sif signed/key.sif
quiet apptainer sign --key "$GNUPGHOME/ec.pem" signed/key.sif
note signed/key.sif "apptainer sign --key of pulled/alpine_latest.sif (DSSE)" docker://alpine

# Encrypted, with a passphrase and with an RSA key (as an unprivileged user: gocryptfs).
APPTAINER_ENCRYPTION_PASSPHRASE=secret build encrypted/passphrase.sif docker://alpine:3.20 --encrypt
quiet openssl genrsa -traditional -out "$GNUPGHOME/rsa.pem" 2048
quiet openssl rsa -in "$GNUPGHOME/rsa.pem" -RSAPublicKey_out -out "$GNUPGHOME/rsa.pub.pem"
build encrypted/rsa.sif "$recipes/tools.def" --encrypt --pem-path "$GNUPGHOME/rsa.pub.pem"

# Changed with `sif`: an overlay, a hole in the descriptor table, an empty file, another architecture.
truncate -s 64K ../overlay.ext3
quiet mke2fs -q -t ext3 -O ^has_journal -b 1024 -F ../overlay.ext3
cp pulled/ubuntu_22.04.sif formats/overlay.sif
quiet apptainer sif add --datatype 4 --partfs 2 --parttype 4 --partarch 2 --groupid 1 formats/overlay.sif ../overlay.ext3
note formats/overlay.sif "apptainer sif add of an ext3 overlay to pulled/ubuntu_22.04.sif" docker://ubuntu:22.04
cp pulled/r-ver_4.4.1.sif formats/deleted-object.sif
quiet apptainer sif del 3 formats/deleted-object.sif
note formats/deleted-object.sif "apptainer sif del 3 of pulled/r-ver_4.4.1.sif" docker://rocker/r-ver:4.4.1
quiet apptainer sif new formats/new.sif
note formats/new.sif "apptainer sif new" -
apptainer sif dump 4 pulled/alpine_latest.sif > ../root.squashfs
cp formats/new.sif formats/arm64.sif
quiet apptainer sif add --datatype 4 --partfs 1 --parttype 2 --partarch 4 --groupid 1 --filename root formats/arm64.sif ../root.squashfs
note formats/arm64.sif "apptainer sif new, sif add of a primary partition for arm64" -
