#!/usr/bin/env bash
# Prints where Chromium is. Installs Debian's package when there is none and that is allowed.
set -euo pipefail
if [ -n "${CHROMIUM:-}" ]; then
    echo "$CHROMIUM"
    exit
fi
command -v chromium || command -v chromium-browser || command -v google-chrome || {
    "$(dirname "$0")/debian.sh" chromium chromium
    command -v chromium
}
