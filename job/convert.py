"""Values as YAML gives them, made into the types that settings are annotated with."""

from __future__ import annotations

import math
import re
import types
import typing
from typing import Any, Literal


def convert(value: Any, kind: Any) -> Any:
    """A plain value as the annotated type: bool, int, float or str, `Literal` of words, tuples (from lists, or from a
    single text), dictionaries with names as keys, and any of these or None.

    Raises:
        ValueError: says what it must be: "a whole number or null".
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        if value is None:
            return None
        try:
            return convert(value, inner)
        except ValueError as error:
            raise ValueError(f"{error} or null") from error
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        listed = [value] if isinstance(value, str) else value
        count = None if arguments[-1] is Ellipsis else len(arguments)
        if not isinstance(listed, list | tuple) or not listed or count not in (None, len(listed)):
            raise ValueError(f"a list of {count or 'one or more'} {_named(arguments[0])}s")
        return tuple(convert(item, arguments[0]) for item in listed)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError("a mapping of names to values")
        return {key: convert(item, float) if arguments[1] is float else item for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-3 as text
    if kind is not float and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError(_named(kind, article=True))


def _named(kind: Any, *, article: bool = False) -> str:
    name = {int: "whole number", float: "number", str: "text", bool: "true or false"}[kind]
    return f"a {name}" if article and kind in (int, float) else name
