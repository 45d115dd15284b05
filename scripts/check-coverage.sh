#!/usr/bin/env bash
# Fails when a test that docs/client-api.md names for a route did not ask that route. The argument is the folder in which
# the tests of whole backends noted what they asked (ALDIS_COVERAGE).
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${1:?the folder with the notes of the tests}"
[ -n "$(ls -A "$folder" 2>/dev/null)" ] || { echo "no test noted anything in $folder" >&2; exit 1; }
sort -u "$folder"/* | awk -F ' \\| ' '
    NR == FNR { noted[$0] = 1; next }
    /^\| `/ {
        route = $1; gsub(/^\| `|`$/, "", route)
        test = $NF; gsub(/^`|` \|$/, "", test)
        outcome = ($4 == "not available") ? "refused" : "answered"
        if (!((outcome " " route " " test) in noted)) { print route ": " test " did not ask"; failed = 1 }
        rows++
    }
    END { print rows + 0 " routes are asked by the tests that are named for them"; exit failed || !rows }' - docs/client-api.md
