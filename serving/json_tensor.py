"""TF Serving's JSON: request bodies to arrays, arrays to response bodies.

The format is that of https://www.tensorflow.org/tfx/serving/api_rest: rows in `instances`, columns in `inputs`,
binary values as `{"b64": ...}`, and NaN and Infinity as numbers. Types are those of this project's versions, float32
and string.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import ServingError, invalid

Array = npt.NDArray[Any]

_MOST_DIMENSIONS = 32
_MOST_SHOWN = 256  # characters of the offending JSON that an error repeats


class Predict(NamedTuple):
    """A parsed `:predict` body."""

    columnar: bool
    """Whether it came as `inputs`, and is answered with `outputs`."""
    inputs: dict[str, Array]
    """float32, or object holding bytes."""


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object at the start of a body. What follows it is ignored, as TF Serving ignores it."""
    try:
        text = body.decode("utf-8-sig")
        stripped = text.lstrip(" \t\r\n")
        if not stripped:
            raise invalid("JSON Parse error: The document is empty")
        document, _ = json.JSONDecoder().raw_decode(stripped)
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from error
    except json.JSONDecodeError as error:
        offset = len(text) - len(stripped) + error.pos
        raise invalid(f"JSON Parse error: Invalid value. {error.msg} at offset: {offset}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: lists or objects nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise invalid("JSON Parse error: Number too big to be stored in double.") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a body names; "" if it names none. Raises `ServingError` INVALID_ARGUMENT."""
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return signature


def check_examples(document: Mapping[str, Any], method: str) -> None:
    """Raises `ServingError` INVALID_ARGUMENT for a `:classify` or `:regress` body without examples."""
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {_shown(document)} When method is {method}, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {_shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {_shown(document)} 'examples' value is an empty array")


def read_predict(document: Mapping[str, Any], types: Mapping[str, str], plain_numbers: bool) -> Predict:
    """The tensors of a `:predict` body.

    Args:
        document: The parsed body.
        types: The inputs of the signature that it names: `float` or `string`, by input name.
        plain_numbers: Promises that there is no `true` or `false` in the body, so that numpy may read its numbers.

    Raises:
        ServingError: INVALID_ARGUMENT, in the words of TF Serving where they say something.
    """
    if not types:
        raise invalid("Failed to get input map for signature: it has no inputs")
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist"
        )
    try:
        if "instances" in document:
            rows = document["instances"]
            if not isinstance(rows, list):
                raise invalid(f"JSON Value: {_shown(document)} Expecting 'instances' to be an list/array")
            if not rows:
                raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
            return Predict(False, _from_rows(rows, types, plain_numbers))
        if "inputs" in document:
            return Predict(True, _from_columns(document["inputs"], types, plain_numbers))
    except RecursionError as error:
        raise invalid("lists nested too deeply for a tensor") from error
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(rows: list[Any], types: Mapping[str, str], plain_numbers: bool) -> dict[str, Array]:
    named = _is_named(rows[0])
    if len(types) > 1 and not named:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required")
    columns: dict[str, list[Any]] = {name: [] for name in types}
    for position, row in enumerate(rows):
        if _is_named(row) != named:
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {position} of input list")
        if not named:
            columns[next(iter(types))].append(row)
        else:
            for name in row:
                if name not in types:
                    raise invalid(
                        f"Failed to process element: {position} key: {name} of 'instances' list. Error: "
                        f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                    )
            if row.keys() != types.keys():
                raise invalid(
                    f"Failed to process element: {position} of 'instances' list. JSON object: {_shown(row)} keys must "
                    f"be equal to: {','.join(sorted(types))}"
                )
            for name, value in row.items():
                columns[name].append(value)
    return {name: _stack(name if named else "", values, types[name], plain_numbers) for name, values in columns.items()}


def _stack(name: str, values: list[Any], dtype: str, plain_numbers: bool) -> Array:
    """One tensor of all rows' values, which must be of one shape."""
    if plain_numbers and (fast := _numbers(values, dtype)) is not None:
        return fast
    tensors: list[Array] = []
    for position, value in enumerate(values):
        try:
            tensor = _tensor(value, dtype)
            if tensors and tensor.size != tensors[0].size:
                raise invalid(f"Expecting tensor size: {tensors[0].size} but got: {tensor.size}")
            if tensors and tensor.shape != tensors[0].shape:
                raise invalid(f"Expecting shape {_dims(tensors[0])} but got: {_dims(tensor)}")
        except ServingError as error:
            key = f" key: {name}" if name else ""
            raise invalid(
                f"Failed to process element: {position}{key} of 'instances' list. Error: "
                f"{error.code.name}: {error.message}"
            ) from error
        tensors.append(tensor)
    return np.stack(tensors)


def _from_columns(value: Any, types: Mapping[str, str], plain_numbers: bool) -> dict[str, Array]:
    if not _is_named(value):
        if len(types) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required")
        value = {next(iter(types)): value}
    found = {}
    for name, dtype in types.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        fast = _numbers(value[name], dtype) if plain_numbers else None
        found[name] = _tensor(value[name], dtype) if fast is None else fast
    return found


def _numbers(value: Any, dtype: str) -> Array | None:
    """A list as float32, where numpy finds nothing but numbers in regular lists; None where it finds anything else."""
    if dtype != "float" or not isinstance(value, list):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        return None
    return _to_float32(array) if array.dtype.kind in "fiu" and array.ndim <= _MOST_DIMENSIONS else None


def _to_float32(array: Array) -> Array:
    with np.errstate(over="ignore"):  # beyond float32 is Infinity, as in TF Serving
        return array.astype(np.float32)


def _tensor(value: Any, dtype: str) -> Array:
    """Any JSON value as a tensor, or what is wrong with it."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > _MOST_DIMENSIONS:
        raise invalid(f"lists nested too deeply for a tensor: {len(shape)} levels")
    leaves = list(_leaves(value, 0, shape, _float if dtype == "float" else _bytes))
    if dtype == "float":
        return _to_float32(np.array(leaves, np.float64)).reshape(shape)
    array = np.empty(len(leaves), object)
    array[:] = leaves
    return array.reshape(shape)


def _leaves(value: Any, level: int, shape: list[int], convert: Callable[[Any], Any]) -> Iterator[Any]:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        yield convert(value)
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        yield from _leaves(each, level + 1, shape, convert)


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise invalid("JSON Parse error: Number too big to be stored in double.") from error
    raise invalid(f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: float")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: string")
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    # White space and missing padding are let through, as in TF Serving.
    compact = re.sub(r"\s", "", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    """An object of named inputs, as opposed to a value or list, or to one binary value."""
    return isinstance(value, dict) and not _is_base64(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
    return names.get(type(value), "Null")


def _dims(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _shown(value: Any) -> str:
    """The start of a value as JSON."""
    text = ""
    try:
        for part in json.JSONEncoder().iterencode(value):
            text += part
            if len(text) > _MOST_SHOWN:
                return text[:_MOST_SHOWN]
    except RecursionError:
        return text[:_MOST_SHOWN]
    return text


def write_predict(outputs: Mapping[str, Array], columnar: bool) -> str:
    """The response body: `outputs` for a columnar request, `predictions`, row by row, for the other.

    Args:
        outputs: float32 arrays by name; rows are along the first axis of each.
        columnar: What `Predict.columnar` said of the request.
    """
    if columnar:
        key, value = "outputs", _named({name: _json(array) for name, array in outputs.items()})
    else:
        rows = zip(*outputs.values(), strict=True)
        items = (_named({name: _json(each) for name, each in zip(outputs, row, strict=True)}) for row in rows)
        key, value = "predictions", f"[{', '.join(items)}]"
    return f'{{\n    "{key}": {value}\n}}'


def _named(values: Mapping[str, str]) -> str:
    """One value stands by itself, several become an object."""
    if len(values) == 1:
        return next(iter(values.values()))
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in values.items()) + "}"


def _json(array: Any) -> str:
    if np.ndim(array):
        return f"[{', '.join(map(_json, array))}]"
    if not np.isfinite(array):
        return "NaN" if np.isnan(array) else "Infinity" if array > 0 else "-Infinity"
    # The fewest digits of six or nine that give the same float32 again, and always a fraction or an exponent.
    text = f"{array:.6g}"
    if np.float32(text) != array:
        text = f"{array:.9g}"
    return text if "." in text or "e" in text else f"{text}.0"


def write_error(message: str) -> str:
    """The body of an error."""
    return json.dumps({"error": message}, indent=4, ensure_ascii=False)
