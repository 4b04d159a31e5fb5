"""TF Serving's JSON as arrays and back: what numpy reads quickly and what is read item by item are the same."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving import json_tensor
from serving.errors import ServingError

FLOATS = {"images": "float"}
STRINGS = {"image_bytes": "string"}
PAIR = {"images": "float", "more": "float"}

any_float32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
tensors = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4), elements=any_float32
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64", "images", "image_bytes", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def read(body: Any, types: dict[str, str], plain_numbers: bool = True) -> json_tensor.Predict:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    plain = plain_numbers and b"true" not in text and b"false" not in text
    return json_tensor.read_predict(json_tensor.parse(text), types, plain)


def outcome(body: Any, types: dict[str, str], plain_numbers: bool) -> Any:
    """The shape, type and values of each tensor, or the code and text of the error."""
    try:
        asked = read(body, types, plain_numbers)
    except ServingError as error:
        return error.code.name, error.message
    return {name: (value.shape, value.dtype, value.tolist()) for name, value in asked.inputs.items()}


@given(tensors)
def test_columns_hold_the_tensor(tensor: np.ndarray) -> None:
    asked = read({"inputs": tensor.tolist()}, FLOATS)
    assert asked.columnar
    np.testing.assert_array_equal(asked.inputs["images"].ravel(), tensor.ravel())
    assert asked.inputs["images"].dtype == np.float32
    if tensor.size:  # below an empty list there is no shape in JSON
        assert asked.inputs["images"].shape == tensor.shape


@given(tensors.filter(lambda tensor: tensor.size > 0))
def test_rows_hold_the_tensor_named_or_not(tensor: np.ndarray) -> None:
    for rows in (tensor.tolist(), [{"images": row} for row in tensor.tolist()]):
        asked = read({"instances": rows}, FLOATS)
        assert not asked.columnar
        np.testing.assert_array_equal(asked.inputs["images"], tensor)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_bytes_arrive_as_they_are(values: list[bytes]) -> None:
    encoded = [{"b64": base64.b64encode(value).decode()} for value in values]
    for body in ({"instances": encoded}, {"inputs": encoded}, {"inputs": {"image_bytes": encoded}}):
        assert read(body, STRINGS).inputs["image_bytes"].tolist() == values


@given(anything, st.sampled_from(["instances", "inputs"]), st.sampled_from([FLOATS, STRINGS, PAIR]))
def test_the_quick_way_and_the_exact_way_agree_on_anything(value: Any, key: str, types: dict[str, str]) -> None:
    quick, exact = (outcome({key: value}, types, plain_numbers) for plain_numbers in (True, False))
    np.testing.assert_equal(quick, exact)


@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    found = outcome(body, FLOATS, True)
    assert isinstance(found, dict) or found[0] == "INVALID_ARGUMENT"


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=2, max_side=4, min_side=0), elements=any_float32))
def test_answers_are_read_back_as_the_same_float32(values: np.ndarray) -> None:
    for columnar, key in ((False, "predictions"), (True, "outputs")):
        content = json.loads(json_tensor.write_predict({"probability": values}, columnar))
        np.testing.assert_array_equal(np.array(content[key], np.float32).reshape(values.shape), values)


def test_answers_of_several_outputs_are_named() -> None:
    outputs = {"a": np.array([0.5, 1], np.float32), "b": np.array([[1, 2], [3, 4]], np.float32)}
    rows = json.loads(json_tensor.write_predict(outputs, columnar=False))
    assert rows == {"predictions": [{"a": 0.5, "b": [1.0, 2.0]}, {"a": 1.0, "b": [3.0, 4.0]}]}
    assert json.loads(json_tensor.write_predict(outputs, columnar=True)) == {
        "outputs": {"a": [0.5, 1.0], "b": [[1.0, 2.0], [3.0, 4.0]]}
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2, "0.2"), (3, "3.0"), (1 / 3, "0.333333343"), (1e-9, "1e-09"), (9e6, "9e+06"), (math.inf, "Infinity")],
)
def test_numbers_are_written_as_tf_serving_writes_them(value: float, text: str) -> None:
    assert json_tensor.write_predict({"p": np.array([value], np.float32)}, True) == f'{{\n    "outputs": [{text}]\n}}'


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": ' + b"[" * 500 + b"1.0" + b"]" * 500 + b"}",
        b'{"inputs": ' + b"[" * 60 + b"1.0" + b"]" * 60 + b"}",
        b'{"instances": [' + b'{"images": ' * 400 + b"1" + b"}" * 400 + b"]}",
        b'{"inputs": [' + b"9" * 5000 + b"]}",
        b'{"inputs": [1' + b"0" * 400 + b"]}",
        b'{"inputs": ["\xff"]}',
        b'{"inputs": [0x10]}',
        b'{"inputs": ["\\ud800"], "x": 1',
    ],
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    assert outcome(body, FLOATS, True)[0] == "INVALID_ARGUMENT"
