"""A version in memory: its signatures, run as TF Serving runs them, and the check that it is worth serving."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from job.errors import UserError
from job.limits import CANONICAL, PREPROCESSING
from job.storage import MANIFEST, DamagedBundle, LocalStorage
from serving import warmup
from serving.version import VersionInfo, read_version_info

Array = npt.NDArray[Any]


class Model:
    """A loaded SavedModel.

    It runs the graph in a session, as TF Serving does, rather than through `tf.saved_model.load`: the same ops with
    the same errors, thread-safe calls, and memory that is given back on `close`.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the SavedModel in `folder`. Raises `UserError` if TensorFlow cannot."""
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), _quiet():
                meta = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], str(folder))
        except Exception as error:  # TensorFlow raises whatever its reader happens to trip over
            self._session.close()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{folder}: TensorFlow cannot load it: {reason}") from error
        self.signatures: dict[str, Any] = dict(meta.signature_def)
        """The `SignatureDef` of each signature, by name."""
        self._calls = {
            name: _Call(self._session, signature)
            for name, signature in self.signatures.items()
            if signature.method_name == tf.saved_model.PREDICT_METHOD_NAME
        }

    def predict(self, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a signature by name, given all of its inputs by name. Safe to call from many threads.

        Raises:
            ValueError: an input of another type or shape than the signature says.
            tf.errors.OpError: what the graph says of an input that it cannot take.
        """
        call = self._calls[signature]
        return dict(zip(call.outputs, call.run(*(call.check(name, inputs[name]) for name in call.inputs)), strict=True))

    def close(self) -> None:
        """Gives the memory back. No call may be under way."""
        self._session.close()


class _Call:
    """One signature, ready to run."""

    def __init__(self, session: Any, signature: Any) -> None:
        self.inputs, self.outputs = sorted(signature.inputs), sorted(signature.outputs)
        self._specs = {
            name: (tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape))
            for name, info in signature.inputs.items()
        }
        feeds = [signature.inputs[name].name for name in self.inputs]
        self.run = session.make_callable([signature.outputs[name].name for name in self.outputs], feed_list=feeds)

    def check(self, name: str, value: Array) -> Array:
        """The same value. Without this, a session would convert types where TF Serving refuses them."""
        dtype, shape = self._specs[name]
        given = tf.as_dtype(value.dtype)
        if given != dtype:
            position = self.inputs.index(name)
            raise ValueError(f"Expects arg[{position}] to be {type_name(dtype)} but {type_name(given)} is provided")
        if not shape.is_compatible_with(value.shape):
            said = f"[{','.join('?' if side is None else str(side) for side in shape)}]"
            got = f"[{','.join(map(str, value.shape))}]"
            raise ValueError(f"Shape of tensor {name} {got} is not compatible with expected shape {said}")
        return value


def start_quietly() -> None:
    """Runs the process's first session with standard error closed: TensorFlow remarks on it, once, and no log level
    keeps it from doing so. Call it before there are threads that might have something to say."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            session.run(tf.constant(0))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def type_name(dtype: Any) -> str:
    """TensorFlow's own name for a type in its messages: `float`, where Python says `float32`."""
    name = str(tf.as_dtype(dtype).name)
    return {"float32": "float", "float64": "double"}.get(name, name)


def load_version(folder: Path) -> tuple[Model, VersionInfo]:
    """The version in `folder`, verified against its manifest, loaded, and warm: its warm-up requests have been run
    and gave the recorded probabilities.

    Raises:
        UserError: names what is wrong with the version.
    """
    verify_files(folder)
    info = read_version_info(folder)
    if info.preprocessing not in (known := (PREPROCESSING, CANONICAL)):
        raise UserError(f"{folder}: preprocesses scans as {info.preprocessing}, this program as {' or '.join(known)}")
    model = Model(folder)
    try:
        warmup.replay(folder, model.predict)
    except UserError:
        model.close()
        raise
    except Exception as error:
        model.close()
        raise UserError(f"{folder}: its warm-up requests fail: {str(error).splitlines()[0]}") from error
    return model, info


def check_version(folder: Path) -> None:
    """Raises `UserError` unless the version in `folder` is complete, loads, and answers its warm-up requests with
    the probabilities recorded at export."""
    model, _ = load_version(folder)
    model.close()


def verify_files(folder: Path) -> None:
    """Raises `UserError` unless the files in `folder` are exactly those that its manifest names."""
    try:
        files = LocalStorage(folder.parent).read_bundle(folder.name)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no complete version, it has no {MANIFEST}") from error
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if extra := sorted(there - set(files) - {MANIFEST}):
        raise DamagedBundle(f"{folder}: damaged, {extra[0]} is not in its manifest")


class _quiet:
    """Keeps TensorFlow from advising, at each load, another loader than the one TF Serving's runtime matches."""

    def __enter__(self) -> None:
        self._level = tf.get_logger().level
        tf.get_logger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        tf.get_logger().setLevel(self._level)
