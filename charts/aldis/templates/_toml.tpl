{{- /* A value as TOML. Helm's own toToml turns integers into floats, which the backend refuses. */ -}}
{{- define "aldis.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ include "aldis.toml.key" $key }} = {{ include "aldis.toml.value" (index $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "aldis.toml.value" $item }}{{ end -}}]
{{- else if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "float64" . -}}
{{ if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{- define "aldis.toml.key" -}}
{{ if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- /* A table and those below it: values first, as TOML wants it. Takes `at`, the name so far, and `table`. */ -}}
{{- define "aldis.toml.table" -}}
{{- $table := .table -}}
{{- $at := .at -}}
{{- $plain := list -}}
{{- $tables := list -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := index $table $key -}}
{{- if kindIs "invalid" $value -}}
{{- else if kindIs "map" $value }}{{ $tables = append $tables $key }}{{ else }}{{ $plain = append $plain $key }}{{ end -}}
{{- end -}}
{{- if and $at (or $plain (not $tables)) }}
[{{ $at }}]
{{- end }}
{{- range $key := $plain }}
{{ include "aldis.toml.key" $key }} = {{ include "aldis.toml.value" (index $table $key) }}
{{- end }}
{{- range $key := $tables }}
{{- $name := include "aldis.toml.key" $key }}
{{- include "aldis.toml.table" (dict "table" (index $table $key) "at" (ternary (printf "%s.%s" $at $name) $name (ne $at ""))) }}
{{- end }}
{{- end }}

{{- /* The whole configuration file. */ -}}
{{- define "aldis.toml" -}}
{{- $values := .Values -}}
{{- $fullname := include "aldis.fullname" . -}}
{{- $config := dict "domain" $values.domain "log" (dict "format" "json") -}}
{{- $client := dict "allowed_origins" $values.client.allowedOrigins "trusted_proxies" $values.client.trustedProxies -}}
{{- $operations := dict "drain_seconds" $values.shutdown.drainSeconds -}}
{{- $store := dict "path" "/var/lib/aldis/aldis.db" -}}
{{- if eq $values.mode "single" -}}
{{- $_ := set $client "listen" "0.0.0.0:8080" -}}
{{- $_ := set $operations "listen" "0.0.0.0:8081" -}}
{{- else -}}
{{- $_ := set $store "cql" $values.scaled.cql -}}
{{- $services := dict "ca_file" "/etc/aldis/internal/ca.crt" -}}
{{- $callers := include "aldis.callers" . | fromYaml -}}
{{- range $service := splitList " " (include "aldis.components" .) -}}
{{- if eq $service "web" -}}
{{- $_ := set $services "web" (dict "client" "0.0.0.0:8080" "operations" "0.0.0.0:8081") -}}
{{- continue -}}
{{- end -}}
{{- $listeners := dict "internal" "0.0.0.0:8090" "operations" "0.0.0.0:8081" "certificate_file" "/etc/aldis/internal/tls.crt" "key_file" "/etc/aldis/internal/tls.key" -}}
{{- $address := printf "%s-%s.%s.svc" $fullname $service $.Release.Namespace -}}
{{- $_ := set $listeners "internal_address" (printf "%s:8090" $address) -}}
{{- if ne $service "federator" }}{{ $_ := set $listeners "client" "0.0.0.0:8080" }}{{ end -}}
{{- if and $values.federation.enabled (index $callers $service "federation") -}}
{{- $_ := set $listeners "federation" "0.0.0.0:8091" -}}
{{- $_ := set $listeners "federation_address" (printf "%s:8091" $address) -}}
{{- end -}}
{{- $_ := set $services $service $listeners -}}
{{- end -}}
{{- $_ := set $config "services" $services -}}
{{- end -}}
{{- $_ := set $config "client" $client -}}
{{- $_ := set $config "operations" $operations -}}
{{- $_ := set $config "store" $store -}}
{{- $deeplink := dict "backend_url" (printf "https://%s" (include "aldis.clientHost" .)) -}}
{{- with $values.client.title }}{{ $_ := set $deeplink "title" . }}{{ end -}}
{{- $users := dict "deeplink" $deeplink -}}
{{- if $values.federation.enabled -}}
{{- $_ := set $users "federation" (dict "strategy" $values.federation.strategy) -}}
{{- $federation := dict "listen" "0.0.0.0:8443" "certificate_file" "/etc/aldis/federation/tls.crt" "key_file" "/etc/aldis/federation/tls.key" "trust" $values.federation.trust -}}
{{- if ne $values.federation.trust "system" }}{{ $_ := set $federation "ca_file" "/etc/aldis/authorities/partners.pem" }}{{ end -}}
{{- if $values.federation.service.proxyProtocol -}}
{{- $_ := set $federation "proxy_protocol" true -}}
{{- $_ := set $federation "trusted_proxies" $values.federation.service.trustedProxies -}}
{{- end -}}
{{- $_ := set $config "federation" $federation -}}
{{- end -}}
{{- with $values.evaluation.coturn }}{{ if .enabled -}}
{{- $_ := set $users "calls" (dict "turn_uris" (list (printf "turn:%s:3478?transport=udp" .host) (printf "turn:%s:3478?transport=tcp" .host)) "turn_credentials" "rest") -}}
{{- end }}{{ end -}}
{{- with $values.evaluation.s3 }}{{ if .enabled -}}
{{- $_ := set $config "assets" (dict "s3" (dict "bucket" .bucket "endpoint" (printf "http://%s-evaluation-s3.%s.svc:7070" $fullname $.Release.Namespace) "path_style" true)) -}}
{{- end }}{{ end -}}
{{- $_ := set $config "users" $users -}}
{{- $config = mustMergeOverwrite $config (deepCopy $values.config) -}}
# Made from the values of the chart. docs/configuration.md tells what each key means.
{{- include "aldis.toml.table" (dict "table" $config "at" "") }}
{{- end }}
