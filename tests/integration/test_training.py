"""Training for real: against plain Keras, over two workers, and from the command line to a version."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from job import catalog, checkpoint, sample, settings
from job.cache import Cache
from job.generator import Batches
from job.model import Classifier
from job.order import Order
from job.predict import probabilities
from job.scan import to_lines
from job.storage import LocalStorage
from job.trainer import Trainer
from job.worker import Solo, work
from serving.export import export_version
from tests.pictures import good_images

SMALL = ["model.filters=[4, 8]", "model.pool_size=5", "model.dense=16", "data.per_class=null", "training.batch_size=16"]

EVERY_EPOCH = ["cluster.checkpoint_every_steps=3"]
"""Three steps are an epoch of the 46 training scans in batches of 16."""


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    before = os.environ.get("COVID_CT_CACHE")
    os.environ["COVID_CT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["COVID_CT_CACHE"]
    else:
        os.environ["COVID_CT_CACHE"] = before


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    storage = LocalStorage(folder)
    for drawing in sample.draw(33, seed=0):
        storage.write(drawing.path, drawing.data)
    return folder


@pytest.fixture
def run(tmp_path):
    return LocalStorage(tmp_path / "run")


def configured(root, *overrides):
    return settings.load(None, [f"data.root={root}", *SMALL, *overrides])


def trained_alone(config, run):
    """A run in this process; its metrics and final weights."""
    found = catalog.build(config.data, config.training.seed)
    run.write("manifest.jsonl", to_lines(found.scans))
    work(config, run.url, Solo(), print)
    return outcome(run)


def trained_in_a_process(config, like, run):
    """The final state of a run on the scans of the run `like`, in a process with as many threads as a worker has:
    the number of threads decides how sums are rounded."""
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


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_one_worker_under_the_strategy_is_plain_keras_fit(root, run, monkeypatch, optimizer):
    # The same batches and initial weights, and the layers as the mission words them: relu inside Conv2D.
    config = configured(root, "training.epochs=3")
    rate = {"sgd": 0.05, "rmsprop": 0.001}[optimizer]

    def make(_rate):
        return keras.optimizers.SGD(rate) if optimizer == "sgd" else made_by_keras(rate)

    made_by_keras = keras.optimizers.RMSprop
    monkeypatch.setattr(keras.optimizers, "RMSprop", make)
    ours, state = trained_alone(config, run)
    monkeypatch.undo()

    scans = [s for s in catalog.build(config.data, 0).scans if s.split == "train"]
    batches = Batches(scans, Cache(LocalStorage(root)), Order(len(scans), 16, 0))
    plain = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            keras.layers.Conv2D(4, 2, activation="relu"),
            keras.layers.MaxPooling2D(5),
            keras.layers.Conv2D(8, 2, activation="relu"),
            keras.layers.MaxPooling2D(5),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    plain.set_weights([v.numpy() for v in Classifier(config.model, seed=0).trainable_variables])
    plain.compile(make(rate), "binary_crossentropy", metrics=["accuracy"])
    for epoch, line in enumerate(ours):
        real = [
            (b.images[: int(sum(b.weights))], b.labels[: int(sum(b.weights))]) for b in batches.epochs(epoch, epoch + 1)
        ]
        dataset = tf.data.Dataset.from_generator(
            lambda real=real: iter(real),
            output_signature=(tf.TensorSpec((None, 224, 224, 3)), tf.TensorSpec((None, 1))),
        )
        history = plain.fit(dataset, verbose=0).history
        assert line["loss"] == pytest.approx(history["loss"][0], abs=1e-5)
        assert line["accuracy"] == pytest.approx(history["accuracy"][0], abs=1e-6)
    for mine, theirs in zip(state.weights, plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def test_validation_over_batches_is_what_one_image_at_a_time_gives(root, run):
    config = configured(root, "training.epochs=1", "training.batch_size=7")
    (line,), state = trained_alone(config, run)
    model = Classifier(config.model)
    for variable, value in zip(model.trainable_variables, state.weights, strict=True):
        variable.assign(value)
    scans = [s for s in catalog.build(config.data, 0).scans if s.split == "val"]
    assert len(scans) % 7, "the last batch is partial"
    cache, losses, right = Cache(LocalStorage(root)), [], 0
    for scan in scans:
        probability = model(tf.constant(cache.read([scan]), tf.float32) * np.float32(1 / 255)).numpy()
        losses.append(float(keras.losses.binary_crossentropy([[float(scan.label)]], probability)[0]))
        right += (probability[0, 0] > 0.5) == bool(scan.label)
    assert line["val_loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert line["val_accuracy"] == right / len(scans)


def test_a_run_is_the_same_to_the_bit_when_repeated(root, tmp_path):
    config = configured(root, "training.epochs=2", "model.dropout=0.3")
    states = [trained_alone(config, LocalStorage(tmp_path / name))[1] for name in ("a", "b")]
    for first, second in zip(states[0].weights, states[1].weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_weights(root, tmp_path):
    results = [
        trained_alone(configured(root, "training.epochs=1", f"training.seed={s}"), LocalStorage(tmp_path / str(s)))[1]
        for s in (0, 1)
    ]
    assert not np.array_equal(results[0].weights[0], results[1].weights[0])


def test_a_run_stopped_at_any_checkpoint_ends_with_the_same_weights_and_metrics(root, tmp_path):
    config = configured(
        root, "training.epochs=3", "cluster.checkpoint_every_steps=2", "model.dropout=0.3",
        "data.augment={rotation_range: 10, zoom_range: 0.1, horizontal_flip: true}",
    )  # fmt: skip
    whole = LocalStorage(tmp_path / "whole")
    lines, state = trained_alone(config, whole)

    class Stop(Exception):
        """Stands for whatever ends a process."""

    for stop_after in (1, 3, 4):
        run, saves = LocalStorage(tmp_path / f"stopped-{stop_after}"), []

        class Stopping(checkpoint.Writer):
            def save(self, state, saves=saves, stop_after=stop_after):
                super().save(state)
                self.flush(must=True)
                saves.append(state.updates)
                if len(saves) == stop_after:
                    raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "Writer", Stopping)
            with pytest.raises(Stop):
                trained_alone(config, run)
        again, resumed = trained_alone(config, run)
        for first, second in zip(
            [*state.weights, *state.optimizer], [*resumed.weights, *resumed.optimizer], strict=True
        ):
            np.testing.assert_array_equal(first, second)
        figures = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
        assert [[line[f] for f in figures] for line in again] == [[line[f] for f in figures] for line in lines]


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(root, run):
    config = configured(root, "training.epochs=2", "cluster.checkpoint_every_steps=2")
    _, state = trained_alone(config, run)
    newest = Path(run.url) / "checkpoints" / run.bundles("checkpoints")[-1]
    content = bytearray((newest / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "arrays.npz").write_bytes(content)
    said = []
    assert checkpoint.newest(run, said.append) == run.bundles("checkpoints")[-2]
    assert newest.name in said[0]
    assert "damaged" in said[0]
    work(config, run.url, Solo(), print)
    _, again = outcome(run)
    for first, second in zip(state.weights, again.weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_relu_after_pooling_is_relu_before_pooling():
    config = settings.Model(filters=(4, 8), pool_size=3, dense=8)
    ours = Classifier(config, seed=3)
    plain = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            keras.layers.Conv2D(4, 2, activation="relu"),
            keras.layers.MaxPooling2D(3),
            keras.layers.Conv2D(8, 2, activation="relu"),
            keras.layers.MaxPooling2D(3),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    plain.set_weights([v.numpy() for v in ours.trainable_variables])
    images = np.random.default_rng(0).random((4, 224, 224, 3), np.float32)
    np.testing.assert_array_equal(ours(images), plain(images))

    def gradients(model, variables):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images))
        return tape.gradient(loss, [v.value for v in variables])

    pairs = zip(gradients(ours, ours.trainable_variables), gradients(plain, plain.trainable_variables), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_dropout_is_a_function_of_the_scans_seed_alone():
    model = Classifier(settings.Model(filters=(2,), pool_size=50, dense=64, dropout=0.5), seed=1)
    images = np.random.default_rng(0).random((6, 224, 224, 3), np.float32)
    seeds = np.stack([np.zeros(6), np.arange(6)], axis=1).astype(np.int32)
    whole = model(images, seeds).numpy()
    parts = np.concatenate([model(images[i::2], seeds[i::2]).numpy() for i in (0, 1)])
    np.testing.assert_allclose(whole, parts[[0, 3, 1, 4, 2, 5]], rtol=0, atol=1e-6)
    assert not np.allclose(whole, model(images, seeds + 100))
    assert not np.allclose(whole, model(images))


def test_the_steps_keep_their_shapes_so_that_nothing_is_traced_twice(root, run):
    config = configured(root, "training.epochs=2")
    found = catalog.build(config.data, 0)
    run.write("manifest.jsonl", to_lines(found.scans))
    made = []

    class Kept(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("job.worker.Trainer", Kept)
        work(config, run.url, Solo(), print)
    assert made[0].train_step.experimental_get_tracing_count() == 1
    assert made[0].score_step.experimental_get_tracing_count() == 1


def job(*arguments, **environment):
    command = [sys.executable, "-m", "job", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def started_by_these_tests() -> set[int]:
    """Processes that were started with this module's cache, Ray's among them."""
    mark, found = os.fsencode(os.environ["COVID_CT_CACHE"]), set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def two_workers(root, tmp_path_factory):
    """`python -m job train` over two workers on a local Ray; its folder, output and summary."""
    folder = tmp_path_factory.mktemp("two")
    overrides = [f"data.root={root}", *SMALL, f"runs={folder}/runs", f"export.root={folder}/models", *EVERY_EPOCH]
    sets = [word for o in [*overrides, "training.epochs=2", "cluster.workers=2"] for word in ("--set", o)]
    done = job("train", "--run", "two", *sets)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 20
    while started_by_these_tests() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not started_by_these_tests(), "the local Ray left processes behind"
    return folder, done, sets


def test_two_workers_are_one_worker_to_1e_5_after_an_epoch(root, run, two_workers):
    # That both hold the same weights to the bit is checked by the workers themselves, every epoch.
    two = LocalStorage(two_workers[0] / "runs" / "two")
    lines, _ = outcome(two)
    ours, _ = trained_alone(configured(root, "training.epochs=2", *EVERY_EPOCH), run)
    for figure in ("loss", "val_loss"):
        assert lines[0][figure] == pytest.approx(ours[0][figure], abs=1e-5)
    states = [checkpoint.load(storage, "step-00000003") for storage in (two, run)]
    assert [(state.epoch, state.step) for state in states] == [(0, 3), (0, 3)]
    assert states[0].totals == pytest.approx(states[1].totals, abs=1e-4)
    for of_two, of_one in zip(states[0].weights, states[1].weights, strict=True):
        np.testing.assert_allclose(of_two, of_one, rtol=0, atol=1e-5)


def test_the_command_says_what_it_does_and_its_summary_is_json(two_workers):
    _, done, _ = two_workers
    lines = done.stderr.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert lines[-1].startswith("exported ")
    assert not any("Traceback" in line or "WARNING" in line for line in lines), done.stderr
    summary = json.loads(done.stdout)
    assert summary["exported"]["version"] == 1
    assert summary["figures"]["auc"]["low"] <= summary["figures"]["auc"]["value"] <= summary["figures"]["auc"]["high"]
    assert summary["versions"]["tensorflow"].startswith("2.20.")
    assert set(summary["seconds"]) == {"catalog", "training", "evaluation", "export", "report", "total"}
    assert all(10**8 < held < 10**10 for held in summary["peak_memory_bytes"].values())
    assert set(summary["peak_memory_bytes"]) == {"driver", "worker_0"}


def test_a_run_leaves_what_the_design_says(two_workers):
    folder, _, _ = two_workers
    run = folder / "runs" / "two"
    for name in ("config.yaml", "manifest.jsonl", "metrics.jsonl", "evaluation.json", "report.html", "summary.json"):
        assert (run / name).stat().st_size, name
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    wanted = {
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "images_per_second",
        "data_wait_share",
        "seconds",
    }
    assert all(wanted <= line.keys() for line in lines)
    manifest = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    keys = {"path", "sha256", "label", "group", "split", "width", "height", "mode", "format"}
    assert len(manifest) == 66
    assert all(keys <= line.keys() for line in manifest)


def test_tensorboard_reads_the_runs_events(two_workers):
    folder, _, _ = two_workers
    (file,) = (folder / "runs" / "two" / "tensorboard").iterdir()
    values = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value.simple_value))
    lines = [json.loads(line) for line in (folder / "runs" / "two" / "metrics.jsonl").read_text().splitlines()]
    assert values["loss/train"] == [(line["epoch"], pytest.approx(line["loss"], abs=1e-6)) for line in lines]
    assert {"accuracy/validation", "learning_rate", "speed/images_per_second"} <= values.keys()


def test_the_exported_version_gives_the_probabilities_of_the_evaluation(root, two_workers):
    folder, _, _ = two_workers
    evaluation = json.loads((folder / "runs" / "two" / "evaluation.json").read_text())
    loaded = tf.saved_model.load(str(folder / "models" / "covid_ct" / "1"))
    for path, probability in evaluation["probabilities"].items():
        data = tf.constant([(root / path).read_bytes()])
        served = loaded.signatures["predict_bytes"](image_bytes=data)["probability"].numpy()
        assert served[0] == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("canonical", [False, True])
def test_evaluation_in_training_and_the_exported_version_agree_for_every_kind_of_file(tmp_path, canonical):
    files = good_images()
    for name, data in files.items():
        for folder in ("CT_COVID", "CT_NonCOVID"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(data)
    config = configured(tmp_path, "data.split=images", f"data.canonical={canonical}")
    scans = catalog.build(config.data, 0).scans
    assert {"L", "RGB", "RGBA", "P"} <= {scan.mode for scan in scans}
    model = Classifier(config.model, seed=5)
    ours = probabilities(model, scans, Cache(LocalStorage(tmp_path), canonical=canonical), 7, 2)
    export_version(
        model, root=str(tmp_path / "models"), name="m", labels=("CT_NonCOVID", "CT_COVID"), threshold=0.5,
        evaluation={}, model_card="", run={}, canonical=canonical,
    )  # fmt: skip
    served = tf.saved_model.load(str(tmp_path / "models" / "m" / "1")).signatures["predict_bytes"]
    for scan, probability in zip(scans, ours, strict=True):
        answer = served(image_bytes=tf.constant([(tmp_path / scan.path).read_bytes()]))["probability"].numpy()
        assert answer[0] == pytest.approx(probability, abs=1e-6), scan.path
    assert len(np.unique(ours.round(6))) > 5


def test_a_finished_run_is_left_as_it_is(two_workers):
    folder, done, sets = two_workers
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = job("train", "--run", "two", *sets)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_more_workers_than_cpus_is_said_at_once(root, tmp_path):
    cpus = os.cpu_count()
    sets = [f"data.root={root}", "data.per_class=null", f"runs={tmp_path}", f"cluster.workers={cpus + 1}"]
    done = job("train", *(word for o in [*sets, "training.batch_size=512"] for word in ("--set", o)))
    assert done.returncode == 1
    assert f"need {cpus + 1}, this machine has {cpus}: set cluster.workers={cpus}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_driver_killed_mid_run_goes_on_from_its_checkpoint(root, tmp_path):
    overrides = [f"data.root={root}", *SMALL, f"runs={tmp_path}/runs", f"export.root={tmp_path}/models"]
    overrides += ["training.epochs=30", "cluster.checkpoint_every_steps=3"]
    sets = [word for o in overrides for word in ("--set", o)]
    command = [sys.executable, "-m", "job", "train", "--run", "killed", *sets]
    folder = LocalStorage(tmp_path / "runs" / "killed")
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        deadline = time.monotonic() + 120
        while not folder.bundles("checkpoints") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    reached = checkpoint.newest(folder, print)
    assert reached is not None
    assert not checkpoint.finished(folder, 30)
    done = job("train", "--run", "killed", *sets)
    assert done.returncode == 0, done.stderr
    lines, state = outcome(folder)
    assert [line["epoch"] for line in lines] == list(range(1, 31))
    undisturbed = trained_in_a_process(configured(root, "training.epochs=30"), folder, LocalStorage(tmp_path / "alone"))
    for first, second in zip(state.weights, undisturbed.weights, strict=True):
        np.testing.assert_array_equal(first, second)
