{{/* The name of all objects: the name of the release, with the name of the chart unless it contains that. */}}
{{- define "pgwicket.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* The labels that select the Pods. They must not change. */}}
{{- define "pgwicket.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pgwicket.labels" -}}
{{ include "pgwicket.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The part of pgwicket.yaml that the chart writes; config in the values overrides it.
Paths are relative to the file: it, the certificates and the revocation lists are in one
volume. */}}
{{- define "pgwicket.config" -}}
listen:
  - address: 0.0.0.0:5432
    {{- with .Values.loadBalancers }}
    proxy_protocol_from: {{ toJson . }}
    {{- end }}
tls:
  cert_file: tls.crt
  key_file: tls.key
  ca_file: ca.crt
  {{- if .Values.tls.crlConfigMap }}
  crl_file: ca.crl
  {{- end }}
acl:
  {{- toYaml .Values.acl | nindent 2 }}
backend:
  host: {{ .Values.backend.host | quote }}
  port: {{ .Values.backend.port }}
  sslmode: {{ .Values.backend.sslmode }}
  {{- if .Values.backend.caConfigMap }}
  sslrootcert: database-ca.crt
  {{- end }}
limits:
  drain_delay: {{ .Values.drain.delaySeconds }}s
  drain_timeout: {{ .Values.drain.timeoutSeconds }}s
admin:
  address: 0.0.0.0:{{ .Values.admin.port }}
  unprotected: true
{{- end -}}
