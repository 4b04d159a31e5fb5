"""The network policies, evaluated: which connections they let through, and which not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.contract.manifests import OVERLAYS, Object, Pod, matches, pods, render

OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod of this namespace, of another one (with that one's labels), or an address."""

    labels: dict[str, str] | None = None
    namespace: dict[str, str] | None = None
    """The other namespace's labels; None for this one."""


OUTSIDE = End()
OWN = {"kubernetes.io/metadata.name": "covid-ct"}


def policies(objects: list[Object], direction: str, labels: dict[str, str]) -> list[Object]:
    return [
        o["spec"]
        for o in objects
        if o["kind"] == "NetworkPolicy"
        and direction in o["spec"]["policyTypes"]
        and matches(o["spec"]["podSelector"], labels)
    ]


def is_peer(peer: Object, end: End) -> bool:
    if end.labels is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], OWN if end.namespace is None else end.namespace):
            return False
    elif end.namespace is not None:
        return False
    return matches(peer.get("podSelector", {}), end.labels)


def passes(objects: list[Object], direction: str, own: End, other: End, port: int) -> bool:
    """Whether the policies on one end let a TCP connection with the other end through."""
    if own.labels is None or own.namespace is not None:
        return True  # not ours to police
    chosen = policies(objects, direction, own.labels)
    peers, rules = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    for rule in [rule for spec in chosen for rule in spec.get(rules, [])]:
        open_ports = [p["port"] for p in rule.get("ports", []) if p["protocol"] == "TCP"]
        if (not rule.get("ports") or port in open_ports) and (
            peers not in rule or any(is_peer(peer, other) for peer in rule[peers])
        ):
            return True
    return not chosen


def connects(objects: list[Object], source: End, target: End, port: int) -> bool:
    return passes(objects, "Egress", source, target, port) and passes(objects, "Ingress", target, source, port)


def ends(objects: list[Object]) -> dict[str, End]:
    names = {"Deployment covid-ct-serving": "serving"}
    found: dict[str, Pod] = {names.get(pod.owner, pod.owner): pod for pod in pods(objects)}
    return {
        **{name: End(pod.labels) for name, pod in found.items()},
        "operator": End(OPERATOR, {"kubernetes.io/metadata.name": "ray"}),
        "stranger": End({"app": "x"}, {"kubernetes.io/metadata.name": "x"}),
        "client": End({"app": "x"}, {"covid-ct/client": "true"}),
        "prometheus": End({"app": "p"}, {"covid-ct/monitoring": "true"}),
        "pod here": End({"app": "x"}),
        "outside": OUTSIDE,
    }


# Source, target, port, and whether it must connect: in every overlay.
ALWAYS = [
    ("submitter", "head", 8265, True),
    ("operator", "head", 8265, True),
    ("workers", "head", 6379, True),
    ("head", "workers", 10002, True),
    ("workers", "workers", 34567, True),
    ("client", "serving", 8501, True),
    ("client", "serving", 8500, True),
    ("pod here", "serving", 8501, False),  # it may come in, but a new pod here has no way out
    ("prometheus", "serving", 8501, True),
    ("prometheus", "head", 8080, True),
    ("stranger", "serving", 8501, False),
    ("stranger", "head", 8265, False),
    ("stranger", "head", 6379, False),
    ("prometheus", "head", 8265, False),
    ("prometheus", "serving", 8500, False),
    ("client", "head", 8265, False),
    ("operator", "head", 6379, False),
    ("operator", "workers", 10002, False),
    ("submitter", "head", 6379, False),
    ("submitter", "serving", 8501, False),
    ("serving", "head", 8265, False),
    ("head", "serving", 8501, False),
    ("submitter", "outside", 443, False),
    ("stranger", "submitter", 8000, False),
    ("head", "outside", 80, False),
    ("serving", "outside", 80, False),
    ("workers", "outside", 22, False),
]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(("source", "target", "port", "expected"), ALWAYS)
def test_only_what_is_needed_connects(overlay: str, source: str, target: str, port: int, expected: bool) -> None:
    objects = render(overlay)
    known = ends(objects)
    assert connects(objects, known[source], known[target], port) is expected


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("source", ["head", "workers", "serving"])
def test_only_overlays_with_remote_storage_reach_out(overlay: str, source: str) -> None:
    objects = render(overlay)
    known = ends(objects)
    assert connects(objects, known[source], OUTSIDE, 443) is (overlay != "local")
    # The Kubernetes API is asked by the autoscaler alone.
    assert connects(objects, known[source], OUTSIDE, 6443) is (overlay == "elastic" and source == "head")


@pytest.mark.parametrize("gone", ["ray-cluster", "submitter", "serving", "default-deny"])
def test_the_evaluation_sees_a_policy_that_is_missing(gone: str) -> None:
    objects = [o for o in render("s3") if o["metadata"]["name"] != gone or o["kind"] != "NetworkPolicy"]
    known = ends(objects)
    assert any(connects(objects, known[s], known[t], port) is not expected for s, t, port, expected in ALWAYS)
