#!/usr/bin/env bash
# Prints which libraries a program of this workspace contains, under which licences, with the texts of
# their licences and notices, each text once. For packages: whoever passes a binary on owes it.
#
#     deploy/third-party.sh PACKAGE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
package=$1
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src

# What is linked; build tools and procedural macros are not passed on.
crates=$(cargo tree --locked --package "$package" --edges normal,no-proc-macro --prefix none --no-dedupe \
    --format '{p}|{l}' | grep -v '(/' | sort -u)

echo "$package contains these libraries (name, version, licence):"
echo
sed -E 's/^([^ ]+) v([^| ]+)[^|]*\|(.*)$/    \1 \2: \3/' <<< "$crates"

seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
while read -r name version; do
    for directory in "$sources"/*/"$name-${version#v}"; do
        [ -d "$directory" ] || continue
        find "$directory" -maxdepth 4 -type f -size -200k \
            \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'unlicense*' \) \
            -not -iname '*.rs' -not -iname '*.py' -not -iname '*.json' | LC_ALL=C sort |
            while read -r file; do
                sum=$(sha256sum < "$file")
                if ! grep -qF "$sum" "$seen"; then
                    echo "$sum" >> "$seen"
                    printf '\n%s\n%s (the same text may belong to others of the list)\n%s\n\n' \
                        ------------------------------------------------------------------------ \
                        "$name $version, ${file#"$directory"/}" \
                        ------------------------------------------------------------------------
                    iconv -f UTF-8 -t UTF-8 -c < "$file"
                fi
            done
    done
done < <(sed -E 's/^([^ ]+) (v[^| ]+).*$/\1 \2/' <<< "$crates")
