#!/usr/bin/env bash
# Runs the golden tests on the samples in ALDIS_GOLDEN; arguments go to cargo. Fails when a crate that has such tests ran none.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${ALDIS_GOLDEN:?names the folder with golden/ and golden-federation/}"
crates=(aldis aldis_golden aldis_users aldis_conversations aldis_notifications aldis_assets it)
export CARGO_TERM_COLOR=never
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# The whole workspace with all features, as in the Makefile: a selection would be built a second time.
"${CARGO:-cargo}" test "$@" --workspace --all-features --lib --test it golden -- --show-output 2>&1 | tee "$log"

for crate in "${crates[@]}"; do
    awk -v name="/$crate-" '
        / Running / { here = index($0, name) }
        here && /^test result: ok\. [1-9]/ { ran = 1 }
        END { exit !ran }' "$log" || { printf 'no golden test of %s ran\n' "$crate" >&2; exit 1; }
done
