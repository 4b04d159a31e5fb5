"""A run's settings: frozen, with a default for every key; an unknown key or a wrong value is an error in one line.

The YAML that `python -m job config` prints is the reference. Defaults are the mission's: 300 + 300 scans, a Conv2D
2x2 / MaxPool2D network, RMSprop 0.001, 15 epochs, one worker. On two CPU cores that is about a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from job import augment
from job.convert import convert
from job.errors import UsageError
from job.limits import MICRO_BATCH


@dataclass(frozen=True)
class Data:
    """Which scans, and how they are split."""

    root: str = "data"
    """A folder or s3://bucket/prefix that holds one folder per class."""
    positive: str = "CT_COVID"
    """The class whose probability the model gives."""
    negative: str = "CT_NonCOVID"
    per_class: int | None = 300
    """A seeded choice of this many per class; null takes all."""
    split: Literal["grouped", "published", "images"] = "grouped"
    """grouped: by patient or source paper; published: from split lists; images: plain random."""
    groups: tuple[str, ...] | None = None
    """CSV files with the patient of each image; null reads the group off the file name."""
    lists: str | None = None
    """The folder with {train,val,test}<CLASS>.txt; null looks for `split/` below the root."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Of train, val and test."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """skip lists them in the run's report."""
    on_contradiction: Literal["keep", "skip"] = "keep"
    """skip leaves out scans that are in both classes, also rescaled or recompressed, and lists them in the report."""
    canonical: bool = False
    """Every scan gray, square, of one sharpness and one compression: closes shortcuts that the audit finds."""
    augment: dict[str, Any] | None = None
    """Names and meanings of Keras's ImageDataGenerator."""


@dataclass(frozen=True)
class Model:
    """The network: one Conv2D + MaxPool2D per number of filters, then Flatten, Dense, Dense(1, sigmoid)."""

    input_range: tuple[float, float] = (0.0, 1.0)
    """What pixels in [0, 1] are stretched to before the first convolution; centred, [-1, 1], it learns faster."""
    filters: tuple[int, ...] = (32, 64, 128)
    kernel_size: int = 2
    pool_size: int = 3
    dense: int = 128
    dropout: float = 0.0


@dataclass(frozen=True)
class Training:
    """How it is fitted."""

    epochs: int = 15
    batch_size: int = 32
    """Of the global batch: all workers together."""
    learning_rate: float = 0.001
    ema_momentum: float | None = None
    """Evaluate and export a moving average of the weights, as Keras's `use_ema` keeps it: this much of it stays in each
    step."""
    seed: int = 0
    """Of the initial weights, the choice and split of the scans, their order, and the augmentation."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"


@dataclass(frozen=True)
class Cluster:
    """What it runs on."""

    workers: int = 1
    min_workers: int | None = None
    """Set it to go on with fewer workers when a machine leaves."""
    gpu: bool = False
    """One GPU per worker."""
    cpus_per_worker: int = 1
    max_failures: int = 3
    """Restarts of the workers from the last checkpoint before the job gives up."""
    checkpoint_every_steps: int = 50
    collective_timeout: int = 120
    """Seconds that a worker waits for the others in a step before all workers are started anew."""


@dataclass(frozen=True)
class Export:
    """Where the version goes: `<root>/<name>/<N>/`."""

    root: str = "models"
    name: str = "covid_ct"
    quality_gate: dict[str, float] | None = None
    """The least values of figures; a version that misses one is not published."""


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    cluster: Cluster = field(default_factory=Cluster)
    runs: str = "runs"
    """A folder or s3://bucket/prefix: everything about a run."""
    export: Export = field(default_factory=Export)

    @property
    def micro_batch(self) -> int:
        """Scans that go through the network at a time, on one worker: the same number on however few workers a run goes
        on with, since other sums would be rounded otherwise. A GPU takes all of a worker's at once."""
        batch, cluster = self.training.batch_size, self.cluster
        return -(-batch // cluster.workers) if cluster.gpu else min(batch, MICRO_BATCH[self.training.precision])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the YAML has them."""
        return typing.cast("dict[str, Any]", _plain(self))

    def to_yaml(self) -> str:
        """The resolved settings; `load` of it gives the same settings."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and --set, for commands that take settings; their values are what `load` takes."""
    parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="settings on top of the defaults")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, e.g. training.epochs=3; repeatable",
    )


def load(path: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file and `key=value` overrides (values in YAML), on top of the defaults.

    Raises:
        UsageError: the file, a key or a value is wrong; the line names it and what would be right.
    """
    settings = Settings()
    if path is not None:
        try:
            settings = from_yaml(Path(path).read_bytes(), path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {override}: write KEY=VALUE, for example training.epochs=3")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override}: the value is not valid YAML: {_one_line(error)}") from error
        settings = _set(settings, key.strip(), parsed, f"--set {override}")
    _check(settings)
    return settings


def from_yaml(data: bytes, source: str) -> Settings:
    """Settings from the bytes of a YAML file, on top of the defaults; see `load`."""
    try:
        given = yaml.safe_load(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(given, dict | None):
        raise UsageError(f"{source}: holds {_kind(given)}; settings are a mapping such as 'training: {{epochs: 15}}'")
    return from_dict(given or {}, source)


def from_dict(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Settings from nested plain values, on top of the defaults; see `load`."""
    settings = Settings()
    for key, value in _leaves(values):
        settings = _set(settings, key, value, source)
    _check(settings)
    return settings


def _leaves(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        is_section = "." not in name and dataclasses.is_dataclass(_types(Settings).get(name))
        if is_section and isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif not (is_section and value is None):
            yield name, value


def _set(settings: Settings, key: str, value: Any, source: str) -> Settings:
    """The settings with one key (`training.epochs`) changed."""
    if key not in _keys():
        if key in _types(Settings):
            raise UsageError(f"{source}: {key} is a section with keys such as {_keys_of(key)[0]}, not a value")
        raise UsageError(f"{source}: unknown setting {key}; {_nearest(key)}")
    *section, name = key.split(".")
    holder: Any = getattr(settings, section[0]) if section else settings
    try:
        converted = convert(value, _types(type(holder))[name])
    except ValueError as error:
        raise UsageError(f"{source}: {key} must be {error}, not {_shown(value)}") from error
    changed: Any = dataclasses.replace(holder, **{name: converted})
    whole: Settings = dataclasses.replace(settings, **{section[0]: changed}) if section else changed
    return whole


def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _keys_of(section: str) -> list[str]:
    return [f"{section}.{field.name}" for field in dataclasses.fields(_types(Settings)[section])]


def _keys() -> list[str]:
    return [
        key
        for name, kind in _types(Settings).items()
        for key in (_keys_of(name) if dataclasses.is_dataclass(kind) else [name])
    ]


def _nearest(key: str) -> str:
    """Names the known key that was probably meant, comparing whole keys and, for a bare name, last parts."""
    ends = {known.rpartition(".")[2]: known for known in _keys()}
    close = difflib.get_close_matches(key, _keys(), n=1, cutoff=0.6)
    close = close or [ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, n=1, cutoff=0.6)]
    return f"did you mean {close[0]}?" if close else "`python -m job config` prints all settings"


def _check(settings: Settings) -> None:
    """Raises `UsageError` for values that no run could have."""
    data, model, training, cluster = settings.data, settings.model, settings.training, settings.cluster
    least = {
        "data.per_class": (data.per_class, 1),
        "model.filters": (min(model.filters), 1),
        "model.kernel_size": (model.kernel_size, 1),
        "model.pool_size": (model.pool_size, 1),
        "model.dense": (model.dense, 1),
        "training.epochs": (training.epochs, 1),
        "training.batch_size": (training.batch_size, 1),
        "training.seed": (training.seed, 0),
        "cluster.workers": (cluster.workers, 1),
        "cluster.min_workers": (cluster.min_workers, 1),
        "cluster.cpus_per_worker": (cluster.cpus_per_worker, 1),
        "cluster.max_failures": (cluster.max_failures, 0),
        "cluster.checkpoint_every_steps": (cluster.checkpoint_every_steps, 1),
        "cluster.collective_timeout": (cluster.collective_timeout, 1),
    }
    for key, (value, bound) in least.items():
        if value is not None and value < bound:
            raise UsageError(f"{key} must be at least {bound}, not {value}")
    if training.seed >= 2**32:
        raise UsageError(f"training.seed must be below 2**32, not {training.seed}")
    if training.learning_rate <= 0:
        raise UsageError(f"training.learning_rate must be above 0, not {training.learning_rate}")
    if training.ema_momentum is not None and not 0 < training.ema_momentum < 1:
        raise UsageError(f"training.ema_momentum must be null or between 0 and 1, not {training.ema_momentum}")
    if not model.input_range[0] < model.input_range[1]:
        raise UsageError(f"model.input_range must be [low, high] with low < high, not {list(model.input_range)}")
    if not 0 <= model.dropout < 1:
        raise UsageError(f"model.dropout must be at least 0 and below 1, not {model.dropout}")
    if min(data.fractions) <= 0 or not math.isclose(sum(data.fractions), 1, abs_tol=1e-6):
        raise UsageError(f"data.fractions must be three positive numbers that add up to 1, not {list(data.fractions)}")
    augment.parse(data.augment)
    if data.positive == data.negative:
        raise UsageError(f"data.positive and data.negative are both {data.positive}; name two class folders")
    for key, name in (
        ("data.positive", data.positive),
        ("data.negative", data.negative),
        ("export.name", settings.export.name),
    ):
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise UsageError(f"{key} must be a plain folder name, not {name!r}")
    # Each worker computes whole micro-batches.
    size = settings.micro_batch
    most = -(-training.batch_size // size)
    if cluster.workers > most:
        raise UsageError(
            f"cluster.workers {cluster.workers} is more than training.batch_size {training.batch_size} has work for "
            f"({size} scans at a time): use at most {most} workers, or training.batch_size {cluster.workers * size}"
        )
    if cluster.min_workers is not None and cluster.min_workers > cluster.workers:
        raise UsageError(f"cluster.min_workers {cluster.min_workers} is more than cluster.workers {cluster.workers}")
    side = 224
    for index, _ in enumerate(model.filters):
        side = (side - model.kernel_size + 1) // model.pool_size
        if side < 1:
            raise UsageError(
                f"model: nothing is left of a 224 pixel image after {index + 1} of {len(model.filters)} layers; "
                "use fewer filters, or a smaller kernel_size or pool_size"
            )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a single value"


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
