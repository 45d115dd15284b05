#!/usr/bin/env bash
# Holds the rules of ARCHITECTURE.md that Cargo alone does not: who may depend on whom, and where an origin may be made.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
complain() {
    printf 'structure: %s\n' "$1" >&2
    failed=1
}

services=(users conversations assets notifications federator)
kits=(types proto api storage delivery peers runtime)

# The names of our own crates that a crate depends on outside its tests.
dependencies() {
    sed -n '/^\[dependencies\]/,/^\[/p' "crates/$1/Cargo.toml" | sed -n 's/^aldis-\([a-z]*\).*/\1/p'
}

for service in "${services[@]}"; do
    for other in "${services[@]}" web; do
        if [ "$service" != "$other" ] && dependencies "$service" | grep -qx "$other"; then
            complain "the service '$service' imports the service '$other'; services meet in proto/internal"
        fi
        if [ "$service" != "$other" ] && grep -rqE "\baldis_$other\b" "crates/$service/src"; then
            complain "the sources of '$service' name aldis_$other"
        fi
    done
done
for kit in "${kits[@]}"; do
    for service in "${services[@]}" web; do
        if dependencies "$kit" | grep -qx "$service"; then
            complain "the kit '$kit' depends on the service '$service'"
        fi
    done
done
if [ -n "$(dependencies types)" ]; then
    complain "'types' depends on another crate of ours"
fi
# The web client is a user of the client API like any other.
if [ "$(dependencies web)" != types ]; then
    complain "'web' depends on more of ours than 'types'"
fi

# Origin::proven vouches for a domain: only the ingress and the federation listener may, and tests.
while IFS= read -r place; do
    case "$place" in
        crates/peers/src/origin.rs | crates/federator/src/ingress.rs | crates/federator/src/ingress/*) ;;
        *tests.rs | */tests/* | */testing.rs) ;;
        *) complain "$place makes an Origin" ;;
    esac
done < <(grep -rl --include='*.rs' 'Origin::proven' crates)

# Only the federator opens or accepts connections to other backends.
for crate in users conversations assets notifications; do
    if grep -rqE 'TcpStream|TcpListener|Endpoint::|hyper::client' "crates/$crate/src" --include='*.rs' --exclude='tests.rs' --exclude-dir=tests; then
        complain "'$crate' opens connections by itself"
    fi
done

# Operations and rules know neither the wire nor the engine.
while IFS= read -r file; do
    if sed '/#\[cfg(test)\]/,$d' "$file" | grep -qE '^use (axum|tonic|prost|rusqlite|scylla)\b'; then
        complain "$file holds operations and imports a transport or an engine"
    fi
done < <(find crates/users/src crates/conversations/src crates/notifications/src -mindepth 2 -maxdepth 2 -name mod.rs)

exit "$failed"
