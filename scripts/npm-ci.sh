#!/usr/bin/env bash
# Installs the packages of a Node project, whole or not at all; several at the same time wait for each other:
# scripts/npm-ci.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
exec 9>"$1/.install.lock"
if command -v flock >/dev/null; then flock 9; fi
complete="$1/node_modules/.complete"
if [ "$complete" -nt "$1/package.json" ] && [ "$complete" -nt "$1/package-lock.json" ]; then exit; fi
PATH="$(scripts/node.sh):$PATH"
(cd "$1" && npm ci)
touch "$complete"
