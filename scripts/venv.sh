#!/usr/bin/env bash
# Makes a Python environment with the packages of a requirements file, once, in the tools folder (ALDIS_TOOLS, or .tools
# here), and prints its folder of programs: scripts/venv.sh NAME REQUIREMENTS
set -euo pipefail
cd "$(dirname "$0")/.."
name="$1" requirements="$2"
digest="$(sha256sum "$requirements" | cut -c1-12)"
folder="$(realpath -m "${ALDIS_TOOLS:-.tools}")/$name-$digest"
if [ ! -e "$folder/complete" ]; then
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
            echo "Python 3 with venv is needed" >&2
            exit 1
        fi
        { apt-get update -q && apt-get install -y -q python3-venv; } >&2
    fi
    mkdir -p "$(dirname "$folder")"
    python3 -m venv --clear "$folder" >&2
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    touch "$folder/complete"
fi
echo "$folder/bin"
