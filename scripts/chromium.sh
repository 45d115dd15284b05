#!/usr/bin/env bash
# Prints where Chromium is. Installs Debian's package when there is none and that is allowed.
set -euo pipefail
if [ -n "${CHROMIUM:-}" ]; then
    echo "$CHROMIUM"
    exit
fi
find_it() {
    command -v chromium || command -v chromium-browser || command -v google-chrome
}
if ! find_it; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo 'the browser tests need Chromium: install the package `chromium`, or set CHROMIUM to its path' >&2
        exit 1
    fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; } >&2
    find_it
fi
