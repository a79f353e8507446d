{{- define "egressip.labels" -}}
{{ include "egressip.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "egressip.selector" -}}
app.kubernetes.io/name: egressip-operator
{{- end }}

{{- define "egressip.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "egressip.logFlags" -}}
- --log-format={{ .Values.logFormat }}
- --v={{ .Values.logLevel }}
{{- end }}
