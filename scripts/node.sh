#!/usr/bin/env bash
# Prints the folder of a `node` and `npm` of version 20 or later: the machine's own, or else one that is fetched, by way
# of Python's package index, into the tools folder (ALDIS_TOOLS, or .tools here). Needs Python 3.9 with venv for that.
# `scripts/node.sh own` fetches none and fails instead.
set -euo pipefail
cd "$(dirname "$0")/.."
least=20

new_enough() {
    local version
    version="$("$1" --version 2>/dev/null)" || return 1
    version="${version#v}"
    [ "${version%%.*}" -ge "$least" ]
}

if own="$(command -v node)" && new_enough "$own" && command -v npm >/dev/null; then
    dirname "$own"
    exit
fi
if [ "${1:-}" = own ]; then exit 1; fi
exec scripts/venv.sh node scripts/node-requirements.txt
