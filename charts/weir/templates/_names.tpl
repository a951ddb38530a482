{{/* Labels of an object, and the ones that select its pods. Called with the component's name. */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir-{{ . }}
app.kubernetes.io/part-of: weir
{{- end }}

{{/* The image of a component. Called with a list of the chart's context and the component's values. */}}
{{- define "weir.image" -}}
{{- $chart := (index . 0).Chart }}
{{- $image := (index . 1).image }}
{{- printf "%s:%s" $image.repository ($image.tag | default $chart.AppVersion) }}
{{- end }}

{{/* Where the API server is, as client libraries look for it. */}}
{{- define "weir.apiServer" -}}
{{- with .Values.apiServer }}
{{- if .host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Annotations of a pod. Called with a list of the chart's context and the component's values. */}}
{{- define "weir.podAnnotations" -}}
{{- $component := index . 1 }}
{{- $annotations := dict }}
{{- if (index . 0).Values.prometheusAnnotations }}
{{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/path" "/metrics" "prometheus.io/port" ($component.metrics.port | toString) }}
{{- end }}
{{- $annotations = merge $annotations $component.podAnnotations }}
{{- with $annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An address and port to listen at. */}}
{{- define "weir.listen" -}}
{{- if contains ":" .address }}[{{ .address | trimAll "[]" }}]:{{ .port }}{{ else }}{{ .address }}:{{ .port }}{{ end }}
{{- end }}

{{/* Whose requests an admission policy is about. */}}
{{- define "weir.agentOnly" -}}
matchConditions:
  - name: is-an-agent
    expression: request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:weir-agent'
{{- end }}

{{/* The node that a token was issued for: the API server takes it from the pod that the token is bound to. */}}
{{- define "weir.nodeVariable" -}}
- name: node
  expression: request.userInfo.extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')
{{- end }}

{{/* Where the kubelet of the node asks a component on the host's network. */}}
{{- define "weir.probe" -}}
{{- $address := .address | trimAll "[]" -}}
host: {{ get (dict "0.0.0.0" "127.0.0.1" "::" "::1") $address | default $address | quote }}
port: {{ .port }}
{{- end }}
