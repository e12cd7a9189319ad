#!/usr/bin/env bash
# What Debian's and RPM's own checkers say of the packages: no error.
#
#     tests/packaging/lint.sh [PACKAGES]     (default: target/package, as deploy/package.sh leaves them)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. .ci/tools.sh
packages=${1:-${CARGO_TARGET_DIR:-target}/package}

for shell in deploy/package.sh deploy/third-party.sh deploy/debian/*.{postinst,prerm,postrm} tests/packaging/*.sh; do
    case $shell in
        deploy/debian/*) sh -n "$shell" ;;
        *) bash -n "$shell" ;;
    esac
done
need lintian lintian lintian "to check .deb packages"
say "lintian"
# As root where CI is: lintian asks to be told.
lintian --allow-root --fail-on error --tag-display-limit 0 "$packages"/*.deb
need rpmlint rpmlint rpmlint "to check .rpm packages"
need cpio cpio cpio "to check .rpm packages"
say "rpmlint"
rpmlint -c deploy/rpm/rpmlint.toml "$packages"/*.rpm
