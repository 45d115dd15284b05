{{- define "aldis.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "aldis.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "aldis.name" .) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "aldis.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "aldis.selector" -}}
app.kubernetes.io/name: {{ include "aldis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "aldis.labels" -}}
{{ include "aldis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "aldis.image" -}}
{{- $repository := required "image.repository: where you pushed the image that the Dockerfile builds" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" $repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end -}}
{{- end }}

{{- define "aldis.clientHost" -}}
{{ default (printf "api.%s" .Values.domain) .Values.client.host }}
{{- end }}

{{- define "aldis.federationHost" -}}
{{ default (printf "federator.%s" .Values.domain) .Values.federation.host }}
{{- end }}

{{- define "aldis.federationSecret" -}}
{{ default (printf "%s-federation" (include "aldis.fullname" .)) .Values.federation.secretName }}
{{- end }}

{{- define "aldis.clientSecret" -}}
{{ default (printf "%s-client" (include "aldis.fullname" .)) .Values.client.tls.secretName }}
{{- end }}

{{- /* The pods: one that runs everything, or one kind per service. */ -}}
{{- define "aldis.components" -}}
{{- if eq .Values.mode "single" -}}
all
{{- else -}}
users conversations assets notifications {{- if .Values.federation.enabled }} federator {{- end }} {{- if dig "web" "enabled" true .Values.config }} web {{- end }}
{{- end -}}
{{- end }}

{{- /* Paths of the client API by service: what `aldis routes` prints. `users` serves the rest. */ -}}
{{- define "aldis.routes" -}}
conversations: [/conversations, /one2one-conversations, /mls, /feature-configs, /teams, /broadcast]
assets: [/assets]
notifications: [/notifications, /await, /events, /push, /time]
users: [/mls/key-packages]
web: [/app]
{{- end }}

{{- /* What may stand before a path. */ -}}
{{- define "aldis.versions" -}}
["", /v8, /v9, /v10, /v11, /v12, /v13]
{{- end }}

{{- /* Who calls whose listener, beside ingress, partners and monitoring. */ -}}
{{- define "aldis.callers" -}}
users:
  internal: [conversations, assets, notifications, federator]
  federation: [federator]
conversations:
  internal: [users, assets]
  federation: [federator]
assets:
  internal: []
  federation: [federator]
notifications:
  internal: [users, conversations]
  federation: []
federator:
  internal: [users, conversations, assets, notifications]
  federation: []
web:
  internal: []
  federation: []
{{- end }}

{{- /* Settings of a service in `mode: scaled`. */ -}}
{{- define "aldis.service" -}}
{{- $own := index .root.Values.scaled.services .service | default dict -}}
{{ mustMergeOverwrite (deepCopy .root.Values.scaled.defaults) $own | toYaml }}
{{- end }}

{{- define "aldis.internalSecret" -}}
{{ index .root.Values.scaled.internalTls.secretNames .service | default (printf "%s-internal-%s" (include "aldis.fullname" .root) .service) }}
{{- end }}

{{- /* The backend service of a route: one for the whole backend, or the service's own. */ -}}
{{- define "aldis.clientService" -}}
{{- if eq .root.Values.mode "single" -}}
{{ include "aldis.fullname" .root }}-client
{{- else -}}
{{ include "aldis.fullname" .root }}-{{ .service }}-client
{{- end -}}
{{- end }}

{{- /* Refuses what cannot work, with a sentence. */ -}}
{{- define "aldis.validate" -}}
{{- if not .Values.domain }}{{ fail "domain: the backend's domain is needed" }}{{ end -}}
{{- if and (eq .Values.mode "scaled") (not .Values.scaled.preview) -}}
{{ fail "mode: scaled needs a CQL store that holds the whole backend, which this version does not have; use mode: single (scaled.preview: true renders it anyway, for looking at)" }}
{{- end -}}
{{- range $secret := list "users.mail.smtp.password" "users.calls.secret" "users.calls.sft_secret" "assets.s3.access_key_id" "assets.s3.secret_access_key" "store.cql.password" -}}
{{- $at := $.Values.config -}}
{{- range $part := splitList "." $secret -}}
{{- if kindIs "map" $at }}{{ $at = index $at $part }}{{ else }}{{ $at = "" }}{{ end -}}
{{- end -}}
{{- if $at }}{{ fail (printf "config.%s is a secret: give it as %s in secrets, or in one of existingSecrets" $secret (printf "ALDIS_%s" (upper (replace "." "__" $secret)))) }}{{ end -}}
{{- end -}}
{{- if hasKey .Values.config "domain" }}{{ fail "config.domain: set `domain` itself" }}{{ end -}}
{{- if hasKey .Values.scaled.cql "password" }}{{ fail "scaled.cql.password is a secret: give it as ALDIS_STORE__CQL__PASSWORD in secrets, or in one of existingSecrets" }}{{ end -}}
{{- if and .Values.federation.enabled (not .Values.federation.secretName) (not .Values.federation.issuerRef) -}}
{{ fail "federation: a certificate is needed: secretName, or issuerRef for cert-manager" }}
{{- end -}}
{{- if and .Values.federation.enabled (ne .Values.federation.trust "system") (not .Values.federation.authorities) (not .Values.federation.authoritiesConfigMap) -}}
{{ fail "federation: trust is private, so authorities of partners are needed: authorities, or authoritiesConfigMap" }}
{{- end -}}
{{- if and .Values.client.gateway.enabled (not .Values.client.gateway.parentRefs) -}}
{{ fail "client.gateway: parentRefs, the Gateway that the routes belong to, are needed" }}
{{- end -}}
{{- if and (eq .Values.mode "scaled") (not .Values.scaled.internalTls.certManager) -}}
{{- range $service := without (splitList " " (include "aldis.components" .)) "web" -}}
{{- if not (index $.Values.scaled.internalTls.secretNames $service) }}{{ fail (printf "scaled.internalTls.secretNames.%s is needed without cert-manager" $service) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}
