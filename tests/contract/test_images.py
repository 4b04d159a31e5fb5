"""The Dockerfiles: their style, their versions, and that manifests, images and TF Serving speak of the same things."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.contract.manifests import OVERLAYS, ROOT, find, pods, render

DOCKERFILES = ["Dockerfile.train", "Dockerfile.serve"]
SERVE = ROOT / "k8s" / "serve-image"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraints() -> dict[str, str]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def locked(flavor: str) -> dict[str, str]:
    text = (ROOT / ".ci" / f"requirements-{flavor}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def arguments(dockerfile: str) -> dict[str, str]:
    """The defaults of a Dockerfile's build arguments."""
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", (ROOT / dockerfile).read_text(), re.MULTILINE))


def served_flags() -> dict[str, str]:
    """TF Serving's flags as `serve` passes them on, with THREADS=2 and the default model config."""
    text = (SERVE / "serve").read_text().partition("exec ")[2]
    return dict(re.findall(r'--(\w+)="?([^\s"]+)', text))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    hadolint = shutil.which("hadolint", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    assert hadolint, "no hadolint: install the project's `test` extra, which brings one"
    done = subprocess.run([hadolint, str(ROOT / dockerfile)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images_run_as_the_user_that_the_manifests_name(dockerfile: str) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    for pod in pods(render("s3")):
        context = pod.spec["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images_carry_the_projects_version_and_their_bases_name(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    assert arguments(dockerfile)["VERSION"] == PROJECT["version"]
    assert f'image.base.name="{arguments(dockerfile)["BASE"]}"' in text
    for label in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_use_the_images_of_this_version(overlay: str) -> None:
    built = {f"{name}:{PROJECT['version']}" for name in ("covid-ct-train", "covid-ct-train-gpu", "covid-ct-serve")}
    documented = (ROOT / "docs" / "kubernetes.md").read_text()
    for pod in pods(render(overlay)):
        for container in pod.containers:
            assert container["image"] in built
            assert f"-t {container['image']}" in documented, "the docs build another image than the manifests use"


def test_ray_in_the_manifests_is_the_images() -> None:
    version = find(render("s3"), "RayJob")["spec"]["rayClusterSpec"]["rayVersion"]
    assert version == constraints()["ray"] == locked("cpu")["ray"] == locked("gpu")["ray"]


def test_tensorflow_has_one_minor_version_everywhere() -> None:
    named = [
        constraints()["tensorflow"],
        constraints()["tensorflow-serving-api"],
        locked("cpu")["tensorflow-cpu"],
        locked("gpu")["tensorflow"],
        arguments("Dockerfile.serve")["BASE"].rpartition(":")[2],
    ]
    assert {version.rsplit(".", 1)[0] for version in named} == {"2.20"}


@pytest.mark.parametrize("flavor", ["cpu", "gpu"])
def test_locks_hold_what_the_project_asks_for(flavor: str) -> None:
    held = {name.removesuffix("-cpu") for name in locked(flavor)}
    asked = {re.split(r"[\[<>=~!;, ]", requirement)[0].lower() for requirement in PROJECT["dependencies"]}
    assert asked - held == set(), "run `make lock`"


@pytest.mark.parametrize("flavor", ["cpu", "gpu"])
def test_locks_hold_what_the_tests_ran_with(flavor: str) -> None:
    tested = {name.lower().replace("_", "-"): version for name, version in constraints().items()}
    tested["tensorflow-cpu"] = tested["tensorflow"]
    own = {"setuptools", "wheel"}  # `pip freeze` leaves them out
    different = {
        name: version
        for name, version in locked(flavor).items()
        if not name.startswith("nvidia") and name not in own and tested.get(name) != version
    }
    assert different == {}, "run `make lock`"


@pytest.mark.parametrize("flavor", ["cpu", "gpu", "build"])
def test_every_locked_package_has_a_hash_and_no_address(flavor: str) -> None:
    text = (ROOT / ".ci" / f"requirements-{flavor}.lock").read_text()
    for requirement in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        assert not requirement or requirement.startswith("#") or "--hash=sha256:" in requirement, requirement
    assert "://" not in text


def test_python_is_the_one_that_the_locks_are_for() -> None:
    text = (ROOT / "Dockerfile.train").read_text()
    assert set(re.findall(r"python(3\.\d+)", text)) == {"3.11"}
    assert "bookworm" in text or "debian:12" in arguments("Dockerfile.train")["BASE"]  # Debian 12's Python is 3.11


def ignored(path: str) -> bool:
    """What .dockerignore says of a path: the last line that matches it, or a folder above it, decides."""
    out = False
    parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").replace("**/", "*")
            if any(fnmatch.fnmatch(candidate, pattern) for candidate in parents):
                out = not line.startswith("!")
    return out


@pytest.mark.parametrize(
    "path", ["data/a.png", "runs/x/config.yaml", "models/covid_ct/1/saved_model.pb", ".git/config", ".env", "x.pem"]
)
def test_data_and_secrets_stay_out_of_the_build(path: str) -> None:
    assert ignored(path)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_is_there_and_gets_into_the_build(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text().replace("${FLAVOR}", "cpu")
    copied = [p for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for p in line.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path


def test_tf_servings_flags_exist() -> None:
    known = set((ROOT / "tests/contract/tf_serving_flags.txt").read_text().partition("\n")[2].split())
    flags = served_flags()
    assert len(flags) > 8
    assert set(flags) <= known
    assert "enable_batching" not in flags


def test_ports_and_files_of_serve_are_those_of_the_manifests() -> None:
    (serving,) = [pod for pod in pods(render("s3")) if "serving" in pod.owner]
    (container,) = serving.spec["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    flags = served_flags()
    assert (flags["port"], flags["rest_api_port"]) == (ports["grpc"], ports["http"])
    assert "command" not in container, "the command line is in the image alone"
    assert "args" not in container, "the command line is in the image alone"
    environment = {variable["name"]: variable for variable in container["env"]}
    assert set(environment) <= set(re.findall(r"\$\{(\w+):", (SERVE / "serve").read_text()))
    pull = next(c for c in serving.containers if c["name"] == "pull")
    assert environment["MODEL_CONFIG"]["value"] == pull["args"][pull["args"].index("--model-config") + 1]
    assert container["readinessProbe"]["exec"]["command"][0].removeprefix("/usr/local/bin/") == "ready"
    copied = (ROOT / "Dockerfile.serve").read_text()
    for name in ("monitoring_config_file", "model_config_file"):
        path = flags[name].partition(":-")[2].rstrip("}") or flags[name]
        assert f"k8s/serve-image/{path.rpartition('/')[2]}" in copied
        assert path.startswith("/etc/covid-ct/")


def test_connections_end_before_the_server_does() -> None:
    age = re.findall(r"_ms=(\d+)", served_flags()["grpc_channel_arguments"])
    deployment = find(render("s3"), "Deployment")["spec"]["template"]["spec"]
    drain = deployment["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sum(map(int, age)) / 1000 < drain < deployment["terminationGracePeriodSeconds"]


def batching_parameters() -> Any:
    """An empty tensorflow.serving.BatchingParameters (session_bundle_config.proto), which the API package lacks."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    field, add = descriptor_pb2.FieldDescriptorProto, file.message_type.add(name="BatchingParameters").field.add
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(names, start=1):
        wrapper = ".google.protobuf.Int64Value"
        add(name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE, type_name=wrapper)
    add(name="allowed_batch_sizes", number=6, label=field.LABEL_REPEATED, type=field.TYPE_INT64)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()


def test_config_files_are_what_tf_serving_reads() -> None:
    models = text_format.Parse((SERVE / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = models.model_config_list.config
    assert (model.name, model.base_path) == ("covid_ct", "/models/covid_ct")
    batching = text_format.Parse((SERVE / "batching.config").read_text(), batching_parameters())
    # TF Serving insists that the last allowed size is the largest batch.
    assert batching.allowed_batch_sizes[-1] == batching.max_batch_size.value
    assert list(batching.allowed_batch_sizes) == sorted(batching.allowed_batch_sizes)
    path = re.findall(
        r'^prometheus_config {\n  enable: true\n  path: "(\S+)"\n}', (SERVE / "monitoring.config").read_text(), re.M
    )
    annotations = find(render("s3"), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert path == [annotations["prometheus.io/path"]]
