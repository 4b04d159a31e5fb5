"""Training in one process: against plain Keras, repeated, stopped and resumed."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from job import catalog, checkpoint
from job.cache import Cache
from job.generator import Batches
from job.model import Classifier
from job.order import Order
from job.predict import probabilities, trained
from job.scan import to_lines
from job.storage import LocalStorage
from job.trainer import Trainer
from job.worker import Solo, work
from serving.export import export_version
from tests.pictures import good_images
from tests.training_support import configured, outcome, plain_keras, trained_alone, trained_in_a_process

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_one_worker_under_the_strategy_is_plain_keras_fit(root, run, monkeypatch, optimizer):
    # The same batches and initial weights, and the layers as the mission words them: relu inside Conv2D.
    config = configured(root, "training.epochs=3")
    rate = {"sgd": 0.05, "rmsprop": 0.001}[optimizer]

    def make(_rate, **_):
        return keras.optimizers.SGD(rate) if optimizer == "sgd" else keras.optimizers.RMSprop(rate)

    if optimizer == "sgd":
        monkeypatch.setattr("job.trainer.RMSprop", make)
    ours, state = trained_alone(config, run)
    monkeypatch.undo()

    scans = [s for s in catalog.build(config.data, 0).scans if s.split == "train"]
    batches = Batches(scans, Cache(LocalStorage(root)), Order(len(scans), 16, 0))
    plain = plain_keras([4, 8], 5, 16)
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


def test_a_moving_average_of_the_weights_is_that_of_keras_and_what_is_exported(root, run):
    config = configured(root, "training.epochs=2", "training.ema_momentum=0.8", "cluster.checkpoint_every_steps=1")
    seen = []

    class Kept(checkpoint.Writer):
        def save(self, state):
            super().save(state)
            seen.append(state.weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "Writer", Kept)
        _, state = trained_alone(config, run)
    expected = seen[0]
    for weights in seen[1:]:
        expected = [0.8 * average + 0.2 * weight for average, weight in zip(expected, weights, strict=True)]
    for mine, theirs in zip(trained(config, state).trainable_variables, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-6)
    plain, _ = trained_alone(configured(root, "training.epochs=2"), LocalStorage(Path(run.url).parent / "plain"))
    assert [line["loss"] for line in plain] == [line["loss"] for line in outcome(run)[0]], "training goes its own way"


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_number_of_threads_changes_no_bit(root, tmp_path, precision):
    def weights(threads):
        config = configured(root, "training.epochs=20", f"training.precision={precision}", "model.dropout=0.3")
        config = replace(config, cluster=replace(config.cluster, cpus_per_worker=threads))
        return trained_in_a_process(config, like, LocalStorage(tmp_path / str(threads))).weights

    config = configured(root)
    like = LocalStorage(tmp_path / "like")
    like.write("manifest.jsonl", to_lines(catalog.build(config.data, config.training.seed).scans))
    for one, two in zip(weights(1), weights(2), strict=True):
        np.testing.assert_array_equal(one, two)


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
