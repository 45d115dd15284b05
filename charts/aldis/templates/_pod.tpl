{{- /* The pod of a component. Takes `root`, `component` ("all" or a service) and `settings` (resources, placing). */ -}}
{{- define "aldis.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $component := .component -}}
{{- $fullname := include "aldis.fullname" $root -}}
{{- $single := eq $component "all" -}}
{{- $internal := not (has $component (list "all" "web")) -}}
{{- $federates := and $values.federation.enabled (or $single (eq $component "federator")) -}}
metadata:
  labels:
    {{- include "aldis.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
    {{- with $values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # The configuration is read at the start only; certificates and authorities are read again by themselves.
    checksum/config: {{ include "aldis.toml" $root | sha256sum }}
    checksum/secrets: {{ toJson $values.secrets | sha256sum }}
    {{- with $values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ $fullname }}-{{ $component }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $values.shutdown.preStopSeconds $values.shutdown.drainSeconds 15 }}
  securityContext: {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .settings.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .settings.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .settings.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $values.topologySpread.enabled (not $single) }}
  topologySpreadConstraints:
    {{- range $values.topologySpread.topologyKeys }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "aldis.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $component }}
    {{- end }}
  {{- end }}
  containers:
    - name: aldis
      image: {{ include "aldis.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: [{{ $component }}, --config, /etc/aldis/config/aldis.toml]
      env:
        # So that `kubectl exec … -- aldis user create …` needs no `--config`.
        - {name: ALDIS_CONFIG, value: /etc/aldis/config/aldis.toml}
      {{- include "aldis.secretEnv" $root | nindent 6 }}
      ports:
        {{- if ne $component "federator" }}
        - {name: client, containerPort: 8080}
        {{- end }}
        - {name: operations, containerPort: 8081}
        {{- if $internal }}
        - {name: internal, containerPort: 8090}
        {{- end }}
        {{- if and $values.federation.enabled (has $component (list "users" "conversations" "assets")) }}
        - {name: federation, containerPort: 8091}
        {{- end }}
        {{- if $federates }}
        - {name: ingress, containerPort: 8443}
        {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: operations}
        periodSeconds: 2
        # A migration of a large store copies it first.
        failureThreshold: 300
      livenessProbe:
        httpGet: {path: /healthz, port: operations}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: operations}
        periodSeconds: 5
        timeoutSeconds: 5
      lifecycle:
        preStop:
          sleep: {seconds: {{ $values.shutdown.preStopSeconds }}}
      resources: {{- toYaml .settings.resources | nindent 8 }}
      securityContext: {{- toYaml $values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        {{- include "aldis.mounts" (dict "root" $root "federates" $federates "internal" $internal) | nindent 8 }}
        - {name: data, mountPath: /var/lib/aldis}
  volumes:
    {{- include "aldis.volumes" (dict "root" $root "federates" $federates "internal" (ternary $component "" $internal)) | nindent 4 }}
    {{- if not $single }}
    - {name: data, emptyDir: {}}
    {{- else if $values.single.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim: {claimName: {{ $values.single.persistence.existingClaim }}}
    {{- end }}
{{- end }}

{{- define "aldis.secretEnv" -}}
{{- if or .Values.secrets .Values.existingSecrets -}}
envFrom:
  {{- if .Values.secrets }}
  - secretRef: {name: {{ include "aldis.fullname" . }}-secrets}
  {{- end }}
  {{- range .Values.existingSecrets }}
  - secretRef: {name: {{ . }}}
  {{- end }}
{{- end -}}
{{- end }}

{{- /* Folders, not single files: only so a changed Secret reaches a running pod. */ -}}
{{- define "aldis.mounts" -}}
- {name: config, mountPath: /etc/aldis/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .federates }}
- {name: federation, mountPath: /etc/aldis/federation, readOnly: true}
{{- if ne .root.Values.federation.trust "system" }}
- {name: authorities, mountPath: /etc/aldis/authorities, readOnly: true}
{{- end }}
{{- end }}
{{- if .internal }}
- {name: internal, mountPath: /etc/aldis/internal, readOnly: true}
{{- end }}
{{- end }}

{{- define "aldis.volumes" -}}
- name: config
  configMap: {name: {{ include "aldis.fullname" .root }}-config}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if .federates }}
- name: federation
  secret: {secretName: {{ include "aldis.federationSecret" .root }}, defaultMode: 0440}
{{- if ne .root.Values.federation.trust "system" }}
- name: authorities
  configMap: {name: {{ default (printf "%s-authorities" (include "aldis.fullname" .root)) .root.Values.federation.authoritiesConfigMap }}}
{{- end }}
{{- end }}
{{- if .internal }}
- name: internal
  secret: {secretName: {{ include "aldis.internalSecret" (dict "root" .root "service" .internal) }}, defaultMode: 0440}
{{- end }}
{{- end }}
