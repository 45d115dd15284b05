#!/usr/bin/env bash
# Builds the web client into crates/web/app/dist, unless that was made of the same sources:
#   scripts/web.sh           with a Node that is fetched when the machine has none of version 20 or later
#   scripts/web.sh if-node   only with the machine's own; without one, or without the packages, says so and goes on
set -euo pipefail
cd "$(dirname "$0")/.."
app=crates/web/app
stamp="$app/.built"

without() {
    echo "$1: going on without the web client (\`make web\` builds it)" >&2
    exit 0
}

# Of what lies in the folder, without what is installed, generated or built there.
sources() {
    {
        find "$app" scripts/precompress.mjs \( -name node_modules -o -path "$app/dist" -o -path "$app/src/gen" \) -prune \
            -o -type f ! -name '.*' -print | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum
    } | cksum
}

wanted="$(sources)"
if [ -f "$app/dist/index.html" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit; fi
if [ "${1:-}" = if-node ]; then
    scripts/node.sh own >/dev/null || without "no Node of version 20 or later"
    scripts/npm-ci.sh "$app" >&2 || without "its packages cannot be installed"
else
    scripts/npm-ci.sh "$app"
fi
PATH="$(scripts/node.sh):$PATH"
rm -f "$stamp"
(cd "$app" && npm run --silent build)
node scripts/precompress.mjs "$app/dist"
echo "$wanted" >"$stamp"
