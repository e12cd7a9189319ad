#!/bin/bash
# Certificates for mutual TLS between the control plane and the agents, with openssl alone.
#
#   enroll.sh [--dir DIR] [--days N] ca                           once: the site's own authority
#   enroll.sh [--dir DIR] [--days N] ca renew                     the same for longer: all that it has signed stays good
#   enroll.sh [--dir DIR] [--days N] agent HOST [NAME|ADDRESS…]   for each login node
#   enroll.sh [--dir DIR] [--days N] control NAME                 for each control plane
#
# Everything is below DIR (default ./sifter-tls):
#   ca.pem, ca.key           ca.key signs: it stays here, offline if you can
#   HOST/agent.pem, .key     with ca.pem to the login node's /etc/sifter/tls/
#   NAME/control.pem, .key   with ca.pem to the control plane's /etc/sifter-control/tls/
# Running it again for the same host renews. The services take new files without a restart.
set -euo pipefail
umask 077

die() { echo "enroll.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }

dir=./sifter-tls
days=
while [ $# -gt 0 ]; do
    case $1 in
        --dir) [ $# -gt 1 ] || usage && dir=$2 && shift 2 ;;
        --days) [ $# -gt 1 ] || usage && days=$2 && shift 2 ;;
        -*) usage ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || usage
command -v openssl > /dev/null || die "openssl is not installed"

# san NAME: as openssl wants it.
san() {
    case $1 in
        spiffe://*) echo "URI:$1" ;;
        *:*) echo "IP:$1" ;;
        *[!0-9.]*) echo "DNS:$1" ;;
        *) echo "IP:$1" ;;
    esac
}

# make: a directory for what is not whole yet, gone at the end, whatever that is.
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
make() {
    mkdir -p "$1"
    work=$(mktemp -d "$1/.new.XXXXXX")
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/key"
}

# certify SUBJECT DAYS SIGNER…: a certificate with the extensions on standard input, and no others. (`req -x509` would
# take those of openssl.cnf, too: with OpenSSL 1.1.1 some are in there twice then, and nobody accepts that.)
certify() {
    local subject=$1 days=$2
    shift 2
    cat > "$work/ext"
    openssl req -new -key "$work/key" -subj "$subject" -out "$work/csr"
    openssl x509 -req -in "$work/csr" "$@" -sha256 -set_serial "0x$(openssl rand -hex 16 | sed 's/^./5/')" \
        -days "$days" -extfile "$work/ext" -out "$work/pem" 2> "$work/log" || { cat "$work/log" >&2; die "cannot sign"; }
}

# put FILE: key and certificate, whole, to FILE.{key,pem}.
put() {
    chmod 644 "$work/pem"
    mv "$work/key" "$1.key"
    mv "$work/pem" "$1.pem"
}

# sign FILE USAGE NAME…: a key and a certificate at DIR/FILE.{key,pem}.
sign() {
    local file=$dir/$1 usage=$2 names="" name subject
    shift 2
    [ -f "$dir/ca.key" ] || die "$dir/ca.key is not there: first \`enroll.sh --dir $dir ca\`"
    [[ $1 =~ ^[A-Za-z0-9:] && $1 != */* ]] || die "\`$1\` is no name of a host: write one, and a URI behind it"
    for name in "$@"; do
        [[ $name =~ ^[A-Za-z0-9._:/-]+$ ]] || die "\`$name\` is no name of a host"
        names=${names:+$names,}$(san "$name")
    done
    # The longest common name that X.509 has.
    subject=/CN=$1
    [ ${#1} -le 64 ] || subject=/O=Sifter
    make "$(dirname "$file")"
    certify "$subject" "${days:-365}" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" << EXT
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $usage
subjectAltName = $names
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
EXT
    openssl verify -CAfile "$dir/ca.pem" "$work/pem" > /dev/null
    put "$file"
    echo "$file.pem ($names), until $(openssl x509 -in "$file.pem" -noout -enddate | cut -d= -f2)"
}

what=$1
shift
case $what in
    ca)
        case $* in
            "")
                [ ! -e "$dir/ca.key" ] || die "$dir/ca.key exists: a new authority would shut out every certificate of the old one"
                make "$dir"
                certify "/CN=Sifter authority" "${days:-3650}" -signkey "$work/key" << EXT
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
EXT
                ;;
            renew)
                [ -f "$dir/ca.key" ] || die "$dir/ca.key is not there: the authority can be renewed with its key only"
                make "$dir"
                cp "$dir/ca.key" "$work/key"
                openssl x509 -in "$dir/ca.pem" -signkey "$work/key" -sha256 -days "${days:-3650}" -out "$work/pem" \
                    2> "$work/log" || { cat "$work/log" >&2; die "cannot renew"; }
                ;;
            *) usage ;;
        esac
        put "$dir/ca"
        echo "$dir/ca.pem, until $(openssl x509 -in "$dir/ca.pem" -noout -enddate | cut -d= -f2)"
        [ "$*" != renew ] || cat << NEXT
Copy it to every login node and control plane. There, as root, where the copy is; on a login node:
  install -m 0640 -g sifter ca.pem /etc/sifter/tls/
on a control plane:
  install -m 0640 -g sifter-control ca.pem /etc/sifter-control/tls/
NEXT
        ;;
    agent)
        [ $# -gt 0 ] || usage
        sign "$1/agent" serverAuth "$@"
        cat << NEXT
Copy them there:
  scp $dir/ca.pem $dir/$1/agent.pem $dir/$1/agent.key $1:
On $1, as root, where the copies are:
  install -d -m 0750 -g sifter /etc/sifter/tls
  install -m 0640 -g sifter ca.pem agent.pem agent.key /etc/sifter/tls/
  rm agent.key
NEXT
        ;;
    control)
        [ $# -gt 0 ] || usage
        sign "$1/control" clientAuth "$@"
        cat << NEXT
On the control plane, as root (where that is another machine, copy them first, as for an agent):
  install -d -m 0750 -g sifter-control /etc/sifter-control/tls
  install -m 0640 -g sifter-control $dir/ca.pem $dir/$1/control.pem $dir/$1/control.key /etc/sifter-control/tls/
and on every agent, in [tls]:
  allow = ["$1"]
NEXT
        ;;
    *) usage ;;
esac
