"""Every overlay is what Kubernetes, KubeRay and the rest of the project expect."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.contract.manifest_rules import RULES
from tests.contract.manifests import OVERLAYS, ROOT, Object, find, kustomize, pods, quantity, render

KUBERNETES = "1.36"
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def strict(schema: Any) -> Any:
    """The same schema, but a field that it does not name is an error (as `kubectl apply` with strict validation)."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return closed


@pytest.fixture(scope="module")
def ray_job(kuberay: Path) -> jsonschema.Draft202012Validator:
    definition = yaml.load((kuberay / "ray.io_rayjobs.yaml").read_text(), Loader=yaml.CSafeLoader)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
    return jsonschema.Draft202012Validator(schema)


@every_overlay
def test_objects_have_the_schema_of_kubernetes(overlay: str) -> None:
    for o in render(overlay):
        if o["kind"] != "RayJob":
            kubernetes_validate.validate(o, KUBERNETES, strict=True)


@every_overlay
def test_ray_jobs_have_the_schema_of_kuberay(overlay: str, ray_job: jsonschema.Draft202012Validator) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in ray_job.iter_errors(find(render(overlay), "RayJob"))]
    assert not errors


@pytest.mark.parametrize("path", ["spec", "spec.rayClusterSpec", "spec.rayClusterSpec.headGroupSpec.template.spec"])
def test_unknown_fields_of_a_ray_job_are_found(path: str, ray_job: jsonschema.Draft202012Validator) -> None:
    job = find(render("local"), "RayJob")
    change(path, lambda spec: spec.update(shutDownAfterJobFinishes=True))([job])
    assert not ray_job.is_valid(job)


@every_overlay
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_objects_fit_together(overlay: str, rule: Callable[[list[Object]], Any]) -> None:
    assert list(rule(render(overlay))) == []


def change(path: str, how: Callable[[Any], Any], kind: str = "RayJob") -> Callable[[list[Object]], None]:
    """A mistake to plant: `how` is done to what lies at the dotted path of the object of a kind."""

    def plant(objects: list[Object]) -> None:
        target: Any = find(objects, kind)
        for part in path.split("."):
            target = target[int(part) if part.isdigit() else part]
        how(target)

    return plant


HEAD = "spec.rayClusterSpec.headGroupSpec.template.spec"
SERVING = "spec.template.spec"
MISTAKES = {
    "not in the namespace": change("metadata", lambda m: m.pop("namespace"), "Service"),
    "selects no pod": change("spec.selector", lambda s: s.update({"app.kubernetes.io/name": "x"}), "Service"),
    "does not select its own": change("spec.selector.matchLabels", lambda s: s.update(x="y"), "Deployment"),
    "target does not exist": change("spec.scaleTargetRef", lambda s: s.update(name="gone"), "HorizontalPodAutoscaler"),
    "sets replicas": change("spec", lambda s: s.update(replicas=2), "Deployment"),
    "which is not there": change(
        "spec.metrics.0.containerResource", lambda m: m.update(container="x"), "HorizontalPodAutoscaler"
    ),
    "no request or limit of memory": change(f"{HEAD}.containers.0.resources.limits", lambda r: r.pop("memory")),
    "and may have": change(f"{HEAD}.containers.0.resources.requests", lambda r: r.update(memory="64Gi")),
    "Prometheus is sent": change(f"{HEAD}.containers.0.ports", lambda ports: ports.pop()),
    "livenessProbe asks port": change(
        f"{SERVING}.containers.0.livenessProbe.grpc", lambda p: p.update(port=8499), "Deployment"
    ),
    "readinessProbe asks port": change(
        f"{SERVING}.containers.0.readinessProbe.exec.command", lambda c: c.append("80"), "Deployment"
    ),
    "no port rest": change("spec.ports.0", lambda p: p.update(targetPort="rest"), "Service"),
    "no ConfigMap other": change(f"{HEAD}.volumes.0.configMap", lambda c: c.update(name="other")),
    "is not documented": change(f"{HEAD}.containers.0.envFrom", lambda e: e.append({"secretRef": {"name": "x"}})),
    "which is no volume": change(
        f"{HEAD}.containers.0.volumeMounts", lambda m: m.append({"name": "x", "mountPath": "/x"})
    ),
    "needs a volume at /tmp": change(f"{HEAD}.containers.0", lambda c: c.update(volumeMounts=[])),
    "is set nowhere": change(f"{SERVING}.initContainers.0.args", lambda a: a.append("$(NOWHERE)"), "Deployment"),
    "may run as root": change(f"{HEAD}.securityContext", lambda s: s.update(runAsNonRoot=False)),
    "no seccomp profile": change(f"{HEAD}.securityContext", lambda s: s.pop("seccompProfile")),
    "host's namespaces": change(HEAD, lambda s: s.update(hostNetwork=True)),
    "not needed here": change(f"{HEAD}.volumes", lambda v: v.append({"name": "h", "hostPath": {"path": "/"}})),
    "may gain privileges": change(
        f"{HEAD}.containers.0.securityContext", lambda s: s.update(allowPrivilegeEscalation=True)
    ),
    "keeps capabilities": change(f"{HEAD}.containers.0.securityContext", lambda s: s.pop("capabilities")),
    "can be written": change(f"{HEAD}.containers.0.securityContext", lambda s: s.update(readOnlyRootFilesystem=False)),
    "mounts a token": change(HEAD, lambda s: s.update(automountServiceAccountToken=True)),
    "longer than 47": change("metadata", lambda m: m.update(name="c" * 48)),
    "no DNS-1035 label": change("metadata", lambda m: m.update(name="0-covid")),
    "ttlSecondsAfterFinished needs": change("spec", lambda s: s.update(shutdownAfterJobFinishes=False)),
    "suspend needs": change("spec", lambda s: s.update(suspend=True, shutdownAfterJobFinishes=False)),
    "clusterSelector excludes": change("spec", lambda s: s.update(clusterSelector={"a": "b"})),
    "InteractiveMode excludes": change("spec", lambda s: s.update(submissionMode="InteractiveMode")),
    "SidecarMode excludes": change("spec", lambda s: s.update(submissionMode="SidecarMode")),
    "must be positive": change("spec", lambda s: s.update(activeDeadlineSeconds=0)),
    "neither rayClusterSpec": change("spec", lambda s: s.update(rayClusterSpec=None)),
    "no YAML mapping": change("spec", lambda s: s.update(runtimeEnvYAML="- a")),
    "authentication is off": change("spec.rayClusterSpec", lambda s: s.pop("authOptions")),
    "rayVersion below": change("spec.rayClusterSpec", lambda s: s.update(rayVersion="2.50.0")),
    "are not within": change("spec.rayClusterSpec.workerGroupSpecs.0", lambda g: g.update(replicas=9)),
    "range of replicas": change("spec.rayClusterSpec.workerGroupSpecs.0", lambda g: g.update(maxReplicas=9)),
    "needs restartPolicy": change(
        "spec.rayClusterSpec",
        lambda s: (
            s.update(enableInTreeAutoscaling=True),
            s["workerGroupSpecs"][0]["template"]["spec"].update(restartPolicy="Always"),
        ),
    ),
    "Kueue admits": change(
        "metadata.labels", lambda labels: labels.update({"kueue.x-k8s.io/queue-name": "q"}), "RayJob"
    ),
}


@pytest.mark.parametrize("complaint", MISTAKES)
def test_a_planted_mistake_is_found(complaint: str) -> None:
    objects = copy.deepcopy(render("elastic" if complaint.startswith("Kueue") else "s3"))
    MISTAKES[complaint](objects)
    found = []
    for rule in RULES:
        try:
            found += list(rule(objects))
        except TypeError:  # rules about pods cannot read a RayJob without a cluster
            assert complaint == "neither rayClusterSpec"
    assert [line for line in found if complaint in line], found


def settings_of(objects: list[Object]) -> Any:
    return yaml.safe_load(find(objects, "ConfigMap", "covid-ct-settings")["data"]["settings.yaml"])


@every_overlay
def test_the_cluster_has_room_for_the_settings_workers(overlay: str) -> None:
    objects = render(overlay)
    (group,) = find(objects, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cluster = settings_of(objects)["cluster"]
    assert group["maxReplicas"] == cluster["workers"]
    assert group["minReplicas"] == cluster.get("min_workers", cluster["workers"])
    assert quantity(limits["cpu"]) >= cluster["cpus_per_worker"]
    assert cluster.get("gpu", False) is ("nvidia.com/gpu" in limits)


@every_overlay
def test_serving_pulls_what_training_exports(overlay: str) -> None:
    objects = render(overlay)
    environment = find(objects, "ConfigMap", "covid-ct-environment")["data"]
    export = settings_of(objects)["export"]
    assert environment["MODEL_SOURCE"] == f"{export['root']}/{export['name']}"


@every_overlay
def test_the_entrypoint_reads_a_mounted_file_and_resumes_by_the_jobs_name(overlay: str) -> None:
    objects = render(overlay)
    job = find(objects, "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:4] == ["python", "-m", "job", "train"]
    assert words[words.index("--run") + 1] == job["metadata"]["name"]
    (head,) = [pod for pod in pods(objects) if pod.owner == "head"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head.spec["containers"][0]["volumeMounts"]}
    folder, file = words[4].rsplit("/", 1)
    assert mounts["settings"] == folder
    assert file in find(objects, "ConfigMap", "covid-ct-settings")["data"]


@every_overlay
def test_storage_can_be_reached_through_the_policies(overlay: str) -> None:
    objects = render(overlay)
    settings, environment = settings_of(objects), find(objects, "ConfigMap", "covid-ct-environment")["data"]
    policies = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "NetworkPolicy"}
    places = [settings["data"]["root"], settings["runs"], settings["export"]["root"]]
    if not any(place.startswith("s3://") for place in places):
        assert "storage" not in policies, "a way out that nobody needs"
        for pod in pods(objects):
            for container in pod.containers:
                if container["name"] in ("ray-head", "ray-worker", "pull", "follow", "sample"):
                    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
                    assert all(any(place.startswith(f"{p}/") for p in paths) for place in places), container["name"]
        return
    endpoint = environment.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
    explicit = re.search(r":(\d+)$", endpoint)
    port = int(explicit[1]) if explicit else {"https": 443, "http": 80}[endpoint.split(":")[0]]
    assert port in [p["port"] for rule in policies["storage"]["egress"] for p in rule["ports"]]


@every_overlay
def test_no_secret_of_the_environment_gets_into_a_manifest(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An env file's line without a value would take it from whoever renders.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "planted-4711")
    rendered = kustomize(overlay)
    assert "planted" not in rendered
    assert "kind: Secret" not in rendered
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", rendered)


def test_every_overlay_is_documented() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    assert [overlay for overlay in OVERLAYS if f"k8s/overlays/{overlay}" not in text] == []


@every_overlay
def test_the_documented_cost_is_what_the_pods_ask_for(overlay: str) -> None:
    objects = render(overlay)
    (group,) = find(objects, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    scaler = find(objects, "HorizontalPodAutoscaler")["spec"]
    asked = {"training": [0.0, 0.0], "serving": [0.0, 0.0]}
    for pod in pods(objects):
        running = [c for c in pod.containers if c in pod.spec["containers"] or c.get("restartPolicy") == "Always"]
        count = group["maxReplicas"] if pod.owner == group["groupName"] else 1
        total = asked["serving" if pod.owner.startswith("Deployment") else "training"]
        for i, (name, unit) in enumerate((("cpu", 1), ("memory", 2**30))):
            total[i] += count * sum(quantity(c["resources"]["requests"][name]) for c in running) / unit
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (row,) = re.findall(
        rf"^\| {overlay} \| (\S+).*? \| (\S+) GiB \| (\S+) \| (\S+) GiB \| (\d+) to (\d+) \|$", text, re.M
    )
    expected = [*asked["training"], *asked["serving"], scaler["minReplicas"], scaler["maxReplicas"]]
    assert [float(cell) for cell in row] == pytest.approx(expected)
