"""Small runs on drawn scans, for the tests of training."""

import json
import subprocess
import sys

import pytest

from job import catalog, checkpoint, settings
from job.scan import to_lines
from job.worker import Solo, work

SMALL = ["model.filters=[4, 8]", "model.pool_size=5", "model.dense=16", "data.per_class=null", "training.batch_size=16"]

EVERY_EPOCH = ["cluster.checkpoint_every_steps=3"]
"""Three steps are an epoch of the 46 training scans in batches of 16."""


def configured(root, *overrides):
    return settings.load(None, [f"data.root={root}", *SMALL, *overrides])


def trained_alone(config, run):
    """A run in this process; its metrics and final weights."""
    found = catalog.build(config.data, config.training.seed)
    run.write("manifest.jsonl", to_lines(found.scans))
    work(config, run.url, Solo(), print)
    return outcome(run)


def trained_in_a_process(config, like, run):
    """The final state of a run on the scans of the run `like`, in a process with as many threads as a worker has."""
    run.write("manifest.jsonl", like.read("manifest.jsonl"))
    code = (
        "import json, sys; from job.settings import from_dict; from job.trainer import limit_threads\n"
        "from job.worker import Solo, work\n"
        "settings = from_dict(json.loads(sys.argv[1])); limit_threads(settings.cluster.cpus_per_worker)\n"
        "work(settings, sys.argv[2], Solo(), print)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(config.to_dict()), run.url], check=True, capture_output=True)
    return outcome(run)[1]


def outcome(run):
    lines = [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]
    return lines, checkpoint.load(run, checkpoint.newest(run, pytest.fail))


def plain_keras(filters, pool_size, dense):
    """The network as the mission words it, in plain Keras: relu inside Conv2D."""
    import keras

    layers = keras.layers
    blocks = [
        layer for n in filters for layer in (layers.Conv2D(n, 2, activation="relu"), layers.MaxPooling2D(pool_size))
    ]
    ends = [layers.Flatten(), layers.Dense(dense, activation="relu"), layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input((224, 224, 3)), *blocks, *ends])
