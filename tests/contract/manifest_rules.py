"""Rules across objects that no schema knows: each takes an overlay's objects and yields what is wrong, a line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import yaml

from tests.contract.manifests import ROOT, Object, find, matches, pods, quantity

Rule = Callable[[list[Object]], Iterator[str]]
RULES: list[Rule] = []
CLUSTER_WIDE = {"Namespace"}
# What KubeRay makes the containers listen on without a word in the manifest (defaults of its release 1.7).
RAY_PORTS = {8265, 8080, 6379}


def rule(function: Rule) -> Rule:
    """Adds a function to the rules."""
    RULES.append(function)
    return function


@rule
def namespaced(objects: list[Object]) -> Iterator[str]:
    """Every object is in the one namespace, which exists."""
    name = find(objects, "Namespace")["metadata"]["name"]
    for o in objects:
        if o["kind"] not in CLUSTER_WIDE and o["metadata"].get("namespace") != name:
            yield f"{o['kind']} {o['metadata']['name']} is not in the namespace {name}"


@rule
def selectors_select(objects: list[Object]) -> Iterator[str]:
    """Every selector selects at least one pod, and a Deployment's its own."""
    labels = [pod.labels for pod in pods(objects)]
    for o in objects:
        spec = o.get("spec", {})
        selectors = []
        if o["kind"] == "Service":
            selectors = [{"matchLabels": spec["selector"]}]
        elif o["kind"] == "PodDisruptionBudget":
            selectors = [spec["selector"]]
        elif o["kind"] == "NetworkPolicy":
            peers = [p for r in spec.get("ingress", []) for p in r.get("from", [])]
            peers += [p for r in spec.get("egress", []) for p in r.get("to", [])]
            selectors = [spec["podSelector"], *(p["podSelector"] for p in peers if "namespaceSelector" not in p)]
        elif o["kind"] == "Deployment":
            own = spec["template"]["metadata"]["labels"]
            spread = spec["template"]["spec"].get("topologySpreadConstraints", [])
            for selector in [spec["selector"], *(s["labelSelector"] for s in spread)]:
                if not matches(selector, own):
                    yield f"Deployment {o['metadata']['name']}: {selector} does not select its own pods"
        for selector in selectors:
            if not any(matches(selector, found) for found in labels):
                yield f"{o['kind']} {o['metadata']['name']}: {selector} selects no pod"


@rule
def scaled_and_budgeted(objects: list[Object]) -> Iterator[str]:
    """The autoscaler's target and container exist, and only the autoscaler sets the replicas."""
    scaler, deployment = find(objects, "HorizontalPodAutoscaler"), find(objects, "Deployment")
    if scaler["spec"]["scaleTargetRef"]["name"] != deployment["metadata"]["name"]:
        yield "the autoscaler's target does not exist"
    if "replicas" in deployment["spec"]:
        yield "the Deployment sets replicas, which are the autoscaler's"
    names = [container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]]
    for metric in scaler["spec"]["metrics"]:
        if metric["containerResource"]["container"] not in names:
            yield f"the autoscaler watches the container {metric['containerResource']['container']}, which is not there"


@rule
def resources_bounded(objects: list[Object]) -> Iterator[str]:
    """Every container asks for processors and memory and has limits that are not below what it asks for."""
    for pod in pods(objects):
        for container in pod.containers:
            resources = container.get("resources", {})
            for name in {"cpu", "memory", *resources.get("requests", {})}:
                request, limit = (resources.get(part, {}).get(name) for part in ("requests", "limits"))
                if request is None or limit is None:
                    yield f"{pod.owner}/{container['name']}: no request or limit of {name}"
                elif quantity(request) > quantity(limit):
                    yield f"{pod.owner}/{container['name']}: asks for {request} of {name} and may have {limit}"


@rule
def ports_real(objects: list[Object]) -> Iterator[str]:
    """Services, probes, scraping and network policies name ports that a container has."""
    everywhere = set(RAY_PORTS)
    for pod in pods(objects):
        numbers = {p["containerPort"] for c in pod.containers for p in c.get("ports", [])}
        names = {p["name"] for c in pod.containers for p in c.get("ports", [])}
        everywhere |= numbers
        scraped = pod.annotations.get("prometheus.io/port")
        if scraped and int(scraped) not in numbers:
            yield f"{pod.owner}: Prometheus is sent to port {scraped}, which no container has"
        for container in pod.containers:
            own = {p["containerPort"] for p in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                check = container.get(probe, {})
                asked = [check[kind]["port"] for kind in ("grpc", "httpGet", "tcpSocket") if kind in check]
                asked += [int(word) for word in check.get("exec", {}).get("command", []) if word.isdigit()]
                yield from (f"{pod.owner}/{container['name']}: {probe} asks port {p}" for p in asked if p not in own)
        for o in objects:
            if o["kind"] == "Service" and matches({"matchLabels": o["spec"]["selector"]}, pod.labels):
                for port in o["spec"]["ports"]:
                    if port["targetPort"] not in names | numbers:
                        yield f"Service {o['metadata']['name']}: no port {port['targetPort']} in {pod.owner}"
    for o in objects:
        if o["kind"] == "NetworkPolicy":
            for entry in o["spec"].get("ingress", []):
                for port in entry.get("ports", []):
                    if port["port"] not in everywhere:
                        yield f"NetworkPolicy {o['metadata']['name']}: nothing listens on {port['port']}"


@rule
def references_exist(objects: list[Object]) -> Iterator[str]:
    """ConfigMaps, claims, accounts and volumes that are named are there, and docs say how to make a Secret."""
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    documented = (ROOT / "docs" / "kubernetes.md").read_text()
    for pod in pods(objects):
        wanted = [("ServiceAccount", pod.spec["serviceAccountName"])]
        volumes = pod.spec.get("volumes", [])
        for volume in volumes:
            if "configMap" in volume:
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for container in pod.containers:
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    wanted.append(("ConfigMap", source["configMapRef"]["name"]))
                elif f"kubectl create secret generic {source['secretRef']['name']}" not in documented:
                    yield f"{pod.owner}: how to make the Secret {source['secretRef']['name']} is not documented"
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            for name in mounted - {volume["name"] for volume in volumes}:
                yield f"{pod.owner}/{container['name']}: mounts {name}, which is no volume"
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") and not any(
                mount["mountPath"] == "/tmp" for mount in container.get("volumeMounts", [])
            ):
                yield f"{pod.owner}/{container['name']}: a read-only root needs a volume at /tmp"
        yield from (f"{pod.owner}: no {kind} {name}" for kind, name in wanted if (kind, name) not in there)


@rule
def variables_resolve(objects: list[Object]) -> Iterator[str]:
    """Every $(NAME) in a command is set in its container's environment; Kubernetes would pass it on as it stands."""
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    for pod in pods(objects):
        for container in pod.containers:
            known = {variable["name"] for variable in container.get("env", [])}
            for source in container.get("envFrom", []):
                known |= set(maps.get(source.get("configMapRef", {}).get("name"), {}))
            for word in [*container.get("command", []), *container.get("args", [])]:
                for name in re.findall(r"\$\((\w+)\)", word):
                    if name not in known:
                        yield f"{pod.owner}/{container['name']}: $({name}) is set nowhere"


@rule
def restricted(objects: list[Object]) -> Iterator[str]:
    """What Pod Security's `restricted` asks for, and beyond it a read-only root and no token of the Kubernetes API."""
    for pod in pods(objects):
        security = pod.spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{pod.owner}: may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.owner}: no seccomp profile"
        if any(pod.spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.owner}: shares the host's namespaces"
        for volume in pod.spec.get("volumes", []):
            if not {"configMap", "emptyDir", "persistentVolumeClaim"} & set(volume):
                yield f"{pod.owner}: volume {volume['name']} is of a kind that is not needed here"
        for container in pod.containers:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{pod.owner}/{container['name']}: may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod.owner}/{container['name']}: keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{pod.owner}/{container['name']}: its root file system can be written"
        autoscaled = pod.owner == "head" and find(objects, "RayJob")["spec"]["rayClusterSpec"].get(
            "enableInTreeAutoscaling"
        )
        if pod.spec.get("automountServiceAccountToken") is not bool(autoscaled):
            yield f"{pod.owner}: mounts a token that it does not need, or lacks one that it needs"
    if not any(o["kind"] == "NetworkPolicy" and o["spec"] == _DENY for o in objects):
        yield "no policy denies all traffic by default"


_DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@rule
def kuberay_accepts(objects: list[Object]) -> Iterator[str]:
    """What KubeRay 1.7 refuses although its CRD allows it (ray-operator/controllers/ray/utils/validation.go)."""
    job = find(objects, "RayJob")
    name, spec = job["metadata"]["name"], job["spec"]
    cluster = spec.get("rayClusterSpec")
    mode, shutdown = spec.get("submissionMode", "K8sJobMode"), spec.get("shutdownAfterJobFinishes", False)
    if len(name) > 47:
        yield "the RayJob's name is longer than 47 characters"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield "the RayJob's name is no DNS-1035 label"
    if spec.get("suspend") and not shutdown:
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished", 0) and not shutdown:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if spec.get("clusterSelector") and (spec.get("suspend") or spec.get("backoffLimit")):
        yield "clusterSelector excludes suspend and backoffLimit"
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "InteractiveMode excludes backoffLimit"
    if mode == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield "SidecarMode excludes submitterPodTemplate and submitterConfig"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            yield f"{key} must be positive"
    if not cluster:
        yield "neither rayClusterSpec nor clusterSelector"
        return
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML") or "{}"), dict):
        yield "runtimeEnvYAML is no YAML mapping"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "token authentication is off"
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
    if version < (2, 53):
        yield "rayVersion below 2.53: token authentication or the health checks without wget do not work"
    autoscaled = cluster.get("enableInTreeAutoscaling", False)
    for group in cluster["workerGroupSpecs"]:
        least, most, now = (group.get(key) for key in ("minReplicas", "maxReplicas", "replicas"))
        if least is None or most is None or not 0 <= least <= now <= most:
            yield f"worker group {group['groupName']}: replicas {now} are not within {least} and {most}"
        elif not autoscaled and least != most:
            yield f"worker group {group['groupName']}: a range of replicas without the autoscaler"
        if autoscaled and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield "the autoscaler (v2) needs restartPolicy Never"
    if autoscaled and "kueue.x-k8s.io/queue-name" in job["metadata"].get("labels", {}):
        yield "Kueue admits clusters of a fixed size only"
