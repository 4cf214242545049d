{{- define "dpe.labels" -}}
app.kubernetes.io/name: dpe
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Never changes during the life of a release: a Deployment's selector is immutable. */}}
{{- define "dpe.selector" -}}
app.kubernetes.io/name: dpe
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* <release>-operator, or dpe-operator for a release called dpe */}}
{{- define "dpe.operator" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{- define "dpe.secret" -}}
{{- .Values.objectStore.credentialsSecret | default (printf "%s-object-store" (.Release.Name | trunc 50 | trimSuffix "-")) -}}
{{- end }}

{{/* Namespaces whose iterations are worked on, as JSON: {"items": [...]} */}}
{{- define "dpe.namespaces" -}}
{{- dict "items" (.Values.watchNamespaces | default (list .Release.Namespace) | uniq | sortAlpha) | toJson -}}
{{- end }}

{{/* Image of one part: (list $ "jobs") */}}
{{- define "dpe.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- (index $root.Values $part).image | default (printf "%s/%s:%s" $image.registry $part ($image.tag | default $root.Chart.AppVersion)) -}}
{{- end }}

{{/* One Container of platform.yaml, as JSON: (list $ "jobs") */}}
{{- define "dpe.container" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $values := index $root.Values $part -}}
{{- dict "image" (include "dpe.image" .) "pullPolicy" $root.Values.image.pullPolicy "command" $values.command "env" $values.env "resources" $values.resources | toJson -}}
{{- end }}

{{/* What the schema cannot say: fails with a message that names the value and what to write. */}}
{{- define "dpe.check" -}}
{{- with .Values.objectStore -}}
{{- if not .endpoint -}}
{{- fail "objectStore.endpoint is empty: set it to http(s)://HOST[:PORT] of your S3 service, as pods reach it" -}}
{{- end -}}
{{- if not .bucket -}}
{{- fail "objectStore.bucket is empty: set it to the name of an existing bucket" -}}
{{- end -}}
{{- if and .credentialsSecret (or .accessKey .secretKey) -}}
{{- fail "objectStore: set either credentialsSecret or accessKey and secretKey, not both" -}}
{{- end -}}
{{- if not (or .credentialsSecret (and .accessKey .secretKey)) -}}
{{- fail "objectStore has no credentials: set credentialsSecret to a Secret with the keys accessKey and secretKey, or set accessKey and secretKey" -}}
{{- end -}}
{{- end -}}
{{- with .Values.jobsPool -}}
{{- if not (hasKey $.Values.pools .) -}}
{{- fail (printf "jobsPool is %q, which pools does not have: it has %s" . (keys $.Values.pools | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* platform.yaml, as JSON; the keys are those of dpe_operator.platform.Platform */}}
{{- define "dpe.platform" -}}
{{- $store := .Values.objectStore -}}
{{- $platform := dict
  "objectStore" (dict
    "endpoint" $store.endpoint
    "region" $store.region
    "bucket" $store.bucket
    "prefix" $store.prefix
    "credentialsSecret" (include "dpe.secret" .))
  "jobs" (include "dpe.container" (list . "jobs") | fromJson)
  "serving" (include "dpe.container" (list . "serving") | fromJson)
  "training" (include "dpe.container" (list . "training") | fromJson)
  "pods" .Values.pods
  "pools" .Values.pools
  "deadlines" .Values.deadlines
  "backoff" .Values.backoff
  "resyncSeconds" .Values.resyncSeconds
  "pollSeconds" .Values.pollSeconds
-}}
{{- with .Values.jobsPool -}}
{{- $_ := set $platform "jobsPool" . -}}
{{- end -}}
{{- $platform | toJson -}}
{{- end }}
