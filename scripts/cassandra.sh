#!/usr/bin/env bash
# Runs a command with a CQL server: scripts/cassandra.sh COMMAND...
# The server is the one that ALDIS_TEST_CQL names (address:port), or a Cassandra node of its own on loopback that is fetched
# with Maven, lives in a temporary folder and ends with the command. The command finds the address in ALDIS_TEST_CQL.
set -euo pipefail
if [ -n "${ALDIS_TEST_CQL:-}" ]; then
    exec "$@"
fi
here="$(cd "$(dirname "$0")" && pwd)"
tools="${ALDIS_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/aldis-tools}"
pom="$here/cassandra.xml"
heap="${CASSANDRA_HEAP:-768m}"
# Seconds until the node must answer.
patience=120

# Java 17 exactly: Cassandra 5.0 knows no newer one.
for java in "${JAVA_HOME:-/nonexistent}/bin/java" /usr/lib/jvm/java-17-openjdk-*/bin/java java; do
    if "$java" -version 2>&1 | grep -q 'version "17'; then break; fi
    java=
done
if [ -z "$java" ]; then
    "$here/debian.sh" java-17 openjdk-17-jre-headless
    java="$(ls -d /usr/lib/jvm/java-17-openjdk-*/bin/java | head -n 1)"
fi

# The folder has the pom's hash in its name: another version is another folder.
lib="$tools/cassandra-$(sha256sum "$pom" | cut -c 1-12)"
if [ ! -e "$lib/.complete" ]; then
    "$here/debian.sh" mvn maven
    rm -rf "$lib"
    mkdir -p "$lib"
    echo 'fetching Cassandra' >&2
    timeout 900 mvn -B -q -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$lib" >&2
    touch "$lib/.complete"
fi

# A port that nothing listens on, below those that the system gives to clients.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}
answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

folder="$(mktemp -d)"
server=
finish() {
    if [ -n "$server" ]; then
        # Nothing in it is worth a clean end.
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {
    local port="$1" storage="$2"
    rm -rf "$folder/data" && mkdir -p "$folder/data"
    cat >"$folder/cassandra.yaml" <<YAML
cluster_name: aldis-test
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
num_tokens: 1
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: $storage
native_transport_port: $port
start_native_transport: true
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{seeds: "127.0.0.1:$storage"}]
# Acknowledged writes need not survive the machine here.
commitlog_sync: periodic
commitlog_sync_period: 10s
commitlog_segment_size: 16MiB
disk_access_mode: standard
memtable_allocation_type: heap_buffers
concurrent_reads: 8
concurrent_writes: 8
concurrent_compactors: 1
auto_snapshot: false
hinted_handoff_enabled: false
# A busy machine is slow, not broken.
read_request_timeout: 20s
write_request_timeout: 20s
cas_contention_timeout: 20s
request_timeout: 30s
YAML
    cat >"$folder/logback.xml" <<'XML'
<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{ISO8601} %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT"/></root>
</configuration>
XML
    local options=(
        "-Xms$heap" "-Xmx$heap" -Xss256k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:MaxDirectMemorySize=128m -XX:+PerfDisableSharedMem
        "-javaagent:$(ls "$lib"/jamm-*.jar)"
        -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true -Djava.net.preferIPv4Stack=true
        -Djava.security.manager=allow
        "-Dcassandra.config=file:///$folder/cassandra.yaml" "-Dcassandra.storagedir=$folder/data" -Dcassandra-foreground=yes
        "-Dlogback.configurationFile=$folder/logback.xml"
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1 -Dcassandra.superuser_setup_delay_ms=0
        -Dcassandra.disable_tcactive_openssl=true
        --add-exports java.rmi/sun.rmi.registry=ALL-UNNAMED --add-exports java.rmi/sun.rmi.server=ALL-UNNAMED
        --add-exports java.management.rmi/com.sun.jmx.remote.internal.rmi=ALL-UNNAMED
        --add-exports java.management/com.sun.jmx.remote.security=ALL-UNNAMED
        --add-exports java.sql/java.sql=ALL-UNNAMED --add-exports jdk.unsupported/sun.misc=ALL-UNNAMED
        --add-opens jdk.management/com.sun.management.internal=ALL-UNNAMED
    )
    local package
    for package in jdk.internal.misc java.lang.ref; do
        options+=(--add-exports "java.base/$package=ALL-UNNAMED")
    done
    for package in java.lang java.lang.module java.lang.reflect java.io java.nio java.util java.util.concurrent \
        java.util.concurrent.atomic java.net sun.nio.ch jdk.internal.loader jdk.internal.ref jdk.internal.reflect \
        jdk.internal.math jdk.internal.module jdk.internal.util.jar; do
        options+=(--add-opens "java.base/$package=ALL-UNNAMED")
    done
    (cd "$folder" && exec "$java" "${options[@]}" -cp "$lib/*" org.apache.cassandra.service.CassandraDaemon) \
        >"$folder/log" 2>&1 &
    server=$!
}

# Another program may take a port between the look and the start: then once more.
for attempt in 1 2 3; do
    port="$(free_port)"
    storage="$(free_port)"
    echo "starting Cassandra on 127.0.0.1:$port" >&2
    start "$port" "$storage"
    deadline=$((SECONDS + patience))
    until answers "$port"; do
        if ! kill -0 "$server" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            break
        fi
        sleep 0.5
    done
    if answers "$port" && kill -0 "$server" 2>/dev/null; then
        break
    fi
    tail -n 40 "$folder/log" >&2
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
    if [ "$attempt" -eq 3 ] || ! grep -q 'in use' "$folder/log"; then
        echo 'Cassandra did not start' >&2
        exit 1
    fi
done

status=0
ALDIS_TEST_CQL="127.0.0.1:$port" "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo 'the last words of Cassandra:' >&2
    tail -n 20 "$folder/log" >&2
fi
exit "$status"
