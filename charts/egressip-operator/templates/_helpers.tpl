{{- define "egressip.labels" -}}
{{ include "egressip.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "egressip.selector" -}}
app.kubernetes.io/name: egressip-operator
{{- end }}

{{- define "egressip.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The place of our rules. Version 0.1.0 had the value iptablesBackend. */}}
{{- define "egressip.backend" -}}
{{- $former := .Values.iptablesBackend | default "auto" }}
{{- if or (eq $former "auto") (ne .Values.backend "auto") }}{{ .Values.backend }}{{ else }}iptables-{{ $former }}{{ end }}
{{- end }}

{{/* Says that the cluster's EgressIPs are another software's; empty if they are not. */}}
{{- define "egressip.foreignEgressIPs" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "egressips.k8s.ovn.org" }}
{{- if and $crd (ne (dig "metadata" "annotations" "egressip.network.openshift.io/served-by" "" $crd) "egressip-operator") -}}
CustomResourceDefinition egressips.k8s.ovn.org is another software's, as of OVN-Kubernetes
{{- end }}
{{- end }}

{{- define "egressip.logFlags" -}}
- --log-format={{ .Values.logFormat }}
- --v={{ .Values.logLevel }}
{{- end }}

{{/* The flags for metrics. Its arguments are the root and a port. */}}
{{- define "egressip.metricsFlags" -}}
{{- $port := index . 1 }}
{{- with (index . 0).Values.metrics -}}
- --metrics-bind-address={{ if $port }}{{ .bindAddress }}:{{ $port }}{{ else }}0{{ end }}
- --metrics-secure={{ .secure }}
{{- end }}
{{- if (index . 0).Values.profiling.enabled }}
- --profiling
{{- end }}
{{- end }}

{{- define "egressip.reviewRules" -}}
# Who asks for metrics, and whether it may.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}
