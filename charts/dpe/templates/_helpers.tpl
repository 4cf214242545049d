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
{{- (index $root.Values $part).image | default (printf "%s/%s:%s" $image.registry ($part | kebabcase) ($image.tag | default $root.Chart.AppVersion)) -}}
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
{{- range $where, $labels := dict "pods.labels" .Values.pods.labels "operator.podLabels" .Values.operator.podLabels -}}
{{- range $label, $_ := $labels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io/(name|instance|version|component|managed-by)|helm\\.sh/chart|dpe\\.dev/.*)$" $label -}}
{{- fail (printf "%s has %s, which pods are found by and chart and operator write themselves: leave it out" $where $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $parts := list "operator" "jobs" "serving" "training" -}}
{{- if (.Values.lmmsEval | default dict).data -}}
{{- $parts = append $parts "lmmsEval" -}}
{{- end -}}
{{- range $parts -}}
{{- if not (or (index $.Values .).image $.Values.image.registry) -}}
{{- fail (printf "image.registry is empty: set it to the registry and folder to which you pushed the images, such as registry.example.org/dpe, or set %s.image" .) -}}
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
{{- /* Helm drops a null of the user's: without the key the operator would take its own default */ -}}
{{- $pods := merge (dict "runAsUser" .Values.pods.runAsUser) .Values.pods -}}
{{- if and .Values.priorityClasses.create (not $pods.priorityClassName) -}}
{{- $pods = merge (dict "priorityClassName" (include "dpe.priorityStages" .)) $pods -}}
{{- end -}}
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
  "pods" $pods
  "pools" .Values.pools
  "modelCache" (.Values.modelCache | default dict)
  "limits" .Values.limits
  "downloads" .Values.downloads
  "tracing" (.Values.tracing | default dict)
  "deadlines" .Values.deadlines
  "backoff" .Values.backoff
  "resyncSeconds" .Values.resyncSeconds
  "pollSeconds" .Values.pollSeconds
-}}
{{- with (.Values.lmmsEval | default dict).data -}}
{{- $_ := set $platform "lmmsEval" (include "dpe.container" (list $ "lmmsEval") | fromJson | merge (dict "data" .)) -}}
{{- end -}}
{{- with .Values.jobsPool -}}
{{- $_ := set $platform "jobsPool" . -}}
{{- end -}}
{{- $platform | toJson -}}
{{- end }}

{{/* First part of the names of what belongs to the release. */}}
{{- define "dpe.fullname" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Label dpe_release of every series and alert: several releases may share one Prometheus. */}}
{{- define "dpe.release" -}}
{{ .Release.Namespace }}/{{ .Release.Name }}
{{- end }}

{{/* Pods of helm test and of the hook before an uninstall. */}}
{{- define "dpe.hookSelector" -}}
app.kubernetes.io/name: dpe
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: hook
{{- end }}

{{- define "dpe.hookLabels" -}}
{{ include "dpe.labels" . }}
app.kubernetes.io/component: hook
{{- end }}

{{/* PriorityClasses are cluster-wide: their names hold the namespace. */}}
{{- define "dpe.priorityOperator" -}}
{{ printf "%s-%s" .Release.Namespace (include "dpe.operator" .) }}
{{- end }}

{{/* PriorityClass of the chart's own pods; empty: none. */}}
{{- define "dpe.ownPriority" -}}
{{- .Values.pods.priorityClassName | default (ternary (include "dpe.priorityOperator" .) "" .Values.priorityClasses.create) -}}
{{- end }}

{{- define "dpe.priorityStages" -}}
{{ printf "%s-%s-stages" .Release.Namespace (include "dpe.fullname" .) }}
{{- end }}

{{/* Spec of a pod that runs a script with the operator's image, rights and credentials: (list $ script configmap arguments) */}}
{{- define "dpe.hookPod" -}}
{{- $root := index . 0 -}}
{{- with $root.Values -}}
restartPolicy: Never
serviceAccountName: {{ include "dpe.operator" $root }}
enableServiceLinks: false
{{- with .pods.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with include "dpe.ownPriority" $root }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pods.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .operator.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .operator.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "dpe.podSecurity" $root | nindent 2 }}
containers:
  - name: main
    image: {{ include "dpe.image" (list $root "operator") | quote }}
    imagePullPolicy: {{ .image.pullPolicy }}
    command: {{- concat (list (first .operator.command) (printf "/etc/dpe-hook/%s" (index $ 1))) (index $ 3) | toYaml | nindent 6 }}
    env:
      - name: DPE_S3_ACCESS_KEY
        valueFrom:
          secretKeyRef: {name: {{ include "dpe.secret" $root | quote }}, key: accessKey}
      - name: DPE_S3_SECRET_KEY
        valueFrom:
          secretKeyRef: {name: {{ include "dpe.secret" $root | quote }}, key: secretKey}
      {{- include "dpe.operatorEnv" $root | nindent 6 }}
    resources:
      requests: {cpu: 50m, memory: 128Mi}
      limits: {memory: 512Mi}
    securityContext: {{- include "dpe.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: platform, mountPath: /etc/dpe, readOnly: true}
      - {name: hook, mountPath: /etc/dpe-hook, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- with .pods.extraVolumeMounts }}{{ toYaml . | nindent 6 }}{{ end }}
volumes:
  - name: platform
    configMap: {name: {{ include "dpe.operator" $root }}}
  - name: hook
    configMap: {name: {{ index $ 2 }}}
  - name: tmp
    emptyDir: {}
  {{- with .pods.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "dpe.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.pods.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dpe.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "dpe.operatorEnv" -}}
- {name: HOME, value: /tmp}
# the uid has no passwd entry
- {name: LOGNAME, value: dpe}
- {name: PYTHONUNBUFFERED, value: "1"}
# of each thread that talks to a server an arena would keep what its largest answer took
- {name: MALLOC_ARENA_MAX, value: "2"}
- name: DPE_NAMESPACES
  value: {{ (include "dpe.namespaces" . | fromJson).items | join "," | quote }}
{{- with .Values.operator.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Ports of a NetworkPolicy: TCP ports from numbers. */}}
{{- define "dpe.tcp" -}}
{{- range . }}
- {protocol: TCP, port: {{ int64 . }}}
{{- end }}
{{- end }}

{{- define "dpe.egressDns" -}}
{{- with .Values.networkPolicy.dns }}
- to: {{- toYaml .to | nindent 4 }}
  ports:
    {{- range .ports }}
    - {protocol: UDP, port: {{ int64 . }}}
    - {protocol: TCP, port: {{ int64 . }}}
    {{- end }}
{{- end }}
{{- end }}

{{- define "dpe.egressApiServer" -}}
{{- with .Values.networkPolicy.apiServer }}
- ports: {{- include "dpe.tcp" .ports | trim | nindent 4 }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "dpe.egressStore" -}}
{{- include "dpe.egressTo" (list .Values.objectStore.endpoint .Values.networkPolicy.objectStore) -}}
{{- end }}

{{- define "dpe.egressTracing" -}}
{{- with (.Values.tracing | default dict).endpoint -}}
{{- include "dpe.egressTo" (list . ($.Values.networkPolicy.tracing | default dict)) -}}
{{- end -}}
{{- end }}

{{/* To an address, or to whom the policy names instead: (list $address $policy).
An address that is no number cannot be written into a NetworkPolicy; a Service's pods may listen on another port than it. */}}
{{- define "dpe.egressTo" -}}
{{- $url := urlParse (index . 0) -}}
{{- $policy := index . 1 -}}
{{- $host := regexReplaceAll ":[0-9]+$" $url.host "" -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- $to := $policy.to -}}
{{- $ports := $policy.ports | default (list $port) -}}
{{- if not $to -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+){3}$" $host -}}
{{- $to = list (dict "ipBlock" (dict "cidr" (printf "%s/32" $host))) -}}
{{- else if regexMatch "^[^.]+\\.[^.]+\\.svc(\\..+)?$" $host -}}
{{- $to = list (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" (index (splitList "." $host) 1)))) -}}
{{- $ports = $policy.ports -}}
{{- end -}}
{{- end -}}
{{- $rule := dict -}}
{{- with $to }}{{ $_ := set $rule "to" . }}{{ end -}}
{{- with $ports }}{{ $_ := set $rule "ports" (include "dpe.tcp" . | fromYamlArray) }}{{ end -}}
- {{ toYaml $rule | nindent 2 | trim }}
{{- end }}
