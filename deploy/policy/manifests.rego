# What no manifest of ours may say, whoever wrote it; also for Gatekeeper, which asks in the same words
# (`input.review.object`). Kubernetes' own schema is checked elsewhere: it knows names and types, not what is wise, and
# takes any string for an amount.
package loan_assets.manifests

import rego.v1

manifest := input.review.object

# Every pod that a manifest describes, wherever in it.
pod := manifest.spec if manifest.kind == "Pod"

pod := manifest.spec.template.spec if manifest.kind in {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}

pod := manifest.spec.jobTemplate.spec.template.spec if manifest.kind == "CronJob"

pod := manifest.spec.predictor if manifest.kind == "InferenceService"

containers := [container |
	some list in ["containers", "initContainers", "ephemeralContainers"]
	some container in object.get(pod, list, [])
]

stays_up if manifest.kind in {"Deployment", "StatefulSet", "DaemonSet", "InferenceService"}

violation contains {"msg": msg} if {
	some container in containers
	not is_pinned(container.image)
	msg := sprintf("%s: image %s has neither a digest nor a version (latest is none)", [container.name, container.image])
}

is_pinned(image) if regex.match(`@sha256:[0-9a-f]{64}$`, image)

is_pinned(image) if {
	regex.match(`:[0-9A-Za-z_][0-9A-Za-z_.-]*$`, image)
	not endswith(image, ":latest")
}

violation contains {"msg": msg} if {
	some container in containers
	not runs_as_nobody(container)
	msg := sprintf("%s: runs as root, or as whoever the image says: set runAsNonRoot and a runAsUser", [container.name])
}

# What is said of the container counts, where it says nothing what is said of the pod.
setting(container, key) := value if {
	value := container.securityContext[key]
} else := value if {
	value := pod.securityContext[key]
}

runs_as_nobody(container) if {
	setting(container, "runAsNonRoot") == true
	setting(container, "runAsUser") > 0
}

violation contains {"msg": msg} if {
	some container in containers
	not container.securityContext.readOnlyRootFilesystem == true
	msg := sprintf("%s: its root file system can be written: set readOnlyRootFilesystem", [container.name])
}

violation contains {"msg": msg} if {
	some container in containers
	not container.securityContext.allowPrivilegeEscalation == false
	msg := sprintf("%s: it may gain privileges: set allowPrivilegeEscalation to false", [container.name])
}

violation contains {"msg": msg} if {
	some container in containers
	container.securityContext.privileged == true
	msg := sprintf("%s: it is privileged", [container.name])
}

violation contains {"msg": msg} if {
	some container in containers
	not drops_all(container)
	msg := sprintf("%s: it keeps capabilities: drop ALL", [container.name])
}

drops_all(container) if "ALL" in container.securityContext.capabilities.drop

violation contains {"msg": msg} if {
	some container in containers
	some capability in container.securityContext.capabilities.add
	msg := sprintf("%s: it is given the capability %s", [container.name, capability])
}

violation contains {"msg": msg} if {
	some container in containers
	not has_seccomp(container)
	msg := sprintf("%s: no seccomp profile: set seccompProfile to RuntimeDefault", [container.name])
}

has_seccomp(container) if setting(container, "seccompProfile").type in {"RuntimeDefault", "Localhost"}

violation contains {"msg": msg} if {
	some key in ["hostNetwork", "hostPID", "hostIPC"]
	pod[key] == true
	msg := sprintf("the pod shares the machine's: %s", [key])
}

violation contains {"msg": msg} if {
	some volume in pod.volumes
	volume.hostPath
	msg := sprintf("volume %s is a folder of the machine", [volume.name])
}

violation contains {"msg": msg} if {
	some container in containers
	some port in container.ports
	port.hostPort
	msg := sprintf("%s: it takes port %d of the machine", [container.name, port.hostPort])
}

# A container for debugging may have none of its own.
violation contains {"msg": msg} if {
	some list in ["containers", "initContainers"]
	some container in object.get(pod, list, [])
	some kind in ["requests", "limits"]
	some resource in ["cpu", "memory"]
	not container.resources[kind][resource]
	msg := sprintf("%s: no %s of %s", [container.name, kind, resource])
}

violation contains {"msg": msg} if {
	some container in containers
	some kind in ["requests", "limits"]
	some resource, amount in container.resources[kind]
	not is_amount(amount)
	msg := sprintf("%s: %v is no amount of %s", [container.name, amount, resource])
}

violation contains {"msg": msg} if {
	manifest.kind == "ResourceQuota"
	some resource, amount in manifest.spec.hard
	not is_amount(amount)
	msg := sprintf("%v is no amount of %s", [amount, resource])
}

violation contains {"msg": msg} if {
	some volume in pod.volumes
	amount := volume.emptyDir.sizeLimit
	not is_amount(amount)
	msg := sprintf("volume %s: %v is no size", [volume.name, amount])
}

violation contains {"msg": msg} if {
	some volume in pod.volumes
	volume.emptyDir
	not volume.emptyDir.sizeLimit
	msg := sprintf("volume %s may fill the machine's disk: set a sizeLimit", [volume.name])
}

is_amount(amount) if is_number(amount)

is_amount(amount) if {
	is_string(amount)
	regex.match(`^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]+)?$`, amount)
}

violation contains {"msg": msg} if {
	stays_up
	some container in object.get(pod, "containers", [])
	some probe in ["readinessProbe", "livenessProbe"]
	not container[probe]
	msg := sprintf("%s: no %s", [container.name, probe])
}

violation contains {"msg": msg} if {
	pod
	object.get(pod, "serviceAccountName", "default") == "default"
	msg := "the pod uses the namespace's own service account: name one that may do what it needs"
}

# Whether a pod needs to ask the cluster for anything must have been thought about.
violation contains {"msg": msg} if {
	pod
	not is_boolean(object.get(pod, "automountServiceAccountToken", "unsaid"))
	msg := "the pod is given the cluster's token without being asked: set automountServiceAccountToken"
}

violation contains {"msg": msg} if {
	some container in containers
	some variable in container.env
	variable.value
	is_secret(variable.name, variable.value)
	msg := sprintf("%s: %s holds a secret: refer to one with secretKeyRef", [container.name, variable.name])
}

violation contains {"msg": msg} if {
	manifest.kind == "ConfigMap"
	some key, value in manifest.data
	is_secret(key, value)
	msg := sprintf("%s holds a secret, and a ConfigMap is not for those", [key])
}

# A user's password in an address, or a word that is only ever said of secrets and is no path to a file.
is_secret(_, value) if regex.match(`[a-z]+://[^/@\s:]*:[^/@\s]+@`, value)

is_secret(name, value) if {
	regex.match(`password|secret|token|access_key|api_key|private_key`, lower(name))
	not startswith(value, "/")
	value != ""
}

violation contains {"msg": msg} if {
	manifest.kind in {"Role", "ClusterRole"}
	some rule in manifest.rules
	some list in ["verbs", "resources", "apiGroups"]
	"*" in rule[list]
	msg := sprintf("it may do everything: %s are *", [list])
}

violation contains {"msg": msg} if {
	manifest.kind in {"Role", "ClusterRole"}
	some rule in manifest.rules
	"secrets" in rule.resources
	some verb in rule.verbs
	verb in {"get", "list", "watch"}
	msg := sprintf("it may %s secrets through the cluster's API", [verb])
}

violation contains {"msg": msg} if {
	manifest.kind in {"Role", "ClusterRole"}
	some rule in manifest.rules
	some verb in rule.verbs
	verb in {"escalate", "bind", "impersonate"}
	msg := sprintf("it may %s, and so give itself what it was not given", [verb])
}

violation contains {"msg": msg} if {
	manifest.kind in {"Role", "ClusterRole"}
	some rule in manifest.rules
	some resource in rule.resources
	resource in {"pods/exec", "pods/attach", "pods/ephemeralcontainers"}
	msg := sprintf("it may step into pods: %s", [resource])
}

violation contains {"msg": msg} if {
	manifest.kind == "RoleBinding"
	manifest.roleRef.kind == "ClusterRole"
	msg := sprintf("it gives what is said elsewhere, for the whole cluster: %s", [manifest.roleRef.name])
}

violation contains {"msg": msg} if {
	manifest.kind in {"ClusterRole", "ClusterRoleBinding"}
	msg := "it holds for the whole cluster: a Role of the namespace does"
}

violation contains {"msg": msg} if {
	manifest.kind == "Service"
	object.get(manifest.spec, "type", "ClusterIP") in {"NodePort", "LoadBalancer"}
	msg := sprintf("the Service is open to outside of the cluster: %s", [manifest.spec.type])
}

violation contains {"msg": msg} if {
	manifest.kind == "Secret"
	some data in ["data", "stringData"]
	count(object.get(manifest, data, {})) > 0
	msg := "a secret is written down in a manifest: refer to a secret store"
}

violation contains {"msg": msg} if {
	manifest.kind == "Ingress"
	not manifest.spec.tls
	msg := "the Ingress takes requests in the clear: set tls"
}

violation contains {"msg": msg} if {
	manifest.kind in {"Job", "CronJob"}
	not is_number(ends_after)
	msg := "the Job may run for ever: set activeDeadlineSeconds"
}

ends_after := manifest.spec.activeDeadlineSeconds if manifest.kind == "Job"

ends_after := manifest.spec.jobTemplate.spec.activeDeadlineSeconds if manifest.kind == "CronJob"
