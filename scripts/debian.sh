#!/usr/bin/env bash
# Makes sure that a program is there, and installs its Debian package where that is possible: scripts/debian.sh PROGRAM PACKAGE
set -euo pipefail
program="$1" package="$2"
if command -v "$program" >/dev/null; then
    exit
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "$program is needed; on Debian it comes with the package $package" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get install -y -q --no-install-recommends "$package"; } >&2
