"""The calls of TF Serving's API on a repository of versions, on behalf of both REST and gRPC. Blocking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.errors import Code, ServingError, from_tensorflow, invalid
from serving.model import type_name
from serving.repository import Loaded, Repository
from serving.version import PIXELS_SIGNATURE

Array = npt.NDArray[Any]


class Which(NamedTuple):
    """The model and version that a request names, as `ModelSpec` does."""

    name: str
    version: int | None = None
    label: str | None = None


def predict(
    loaded: Loaded, signature: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
) -> dict[str, Array]:
    """Runs a signature ("" is the default one) on its inputs; its outputs, or those of `output_filter`.

    Raises:
        ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION for what the request gets wrong.
    """
    signature = signature or PIXELS_SIGNATURE
    definition = loaded.model.signatures.get(signature)
    if definition is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
    _check_method(definition)
    _check_names(definition, inputs)
    _check_filter(definition, output_filter)
    try:
        outputs = loaded.model.predict(signature, inputs)
    except ValueError as error:
        raise invalid(str(error)) from error
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    return {name: outputs[name] for name in output_filter} if output_filter else outputs


def _check_method(definition: Any) -> None:
    if definition.method_name != tf.saved_model.PREDICT_METHOD_NAME:
        raise ServingError(
            Code.INTERNAL,
            "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
            f"tensorflow/serving/classify, tensorflow/serving/regress}}. Was: {definition.method_name}",
        )


def _check_names(definition: Any, inputs: Mapping[str, Array]) -> None:
    given, wanted = sorted(inputs), sorted(definition.inputs)
    if len(given) != len(wanted):
        extra, missing = sorted(set(given) - set(wanted)), sorted(set(wanted) - set(given))
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({{{','.join(given)}}}) != "
            f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}. Missing but required: "
            f"{{{','.join(missing)}}}."
        )
    for name in wanted:
        if name not in inputs:
            raise invalid(
                f"Signature input alias: {name}(feed name: {definition.inputs[name].name}) not found in request and no "
                f"default value provided. Inputs expected to be in the request {{{','.join(given)}}}, or default input "
                "alias set: "
            )


def _check_filter(definition: Any, output_filter: Sequence[str]) -> None:
    for position, name in enumerate(output_filter):
        if name not in definition.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(sorted(definition.outputs))}}}."
            )
        if name in output_filter[:position]:
            raise invalid(f"duplicate output tensor alias: {name}")


def input_types(loaded: Loaded, signature: str) -> dict[str, str]:
    """The types of a signature's inputs by name, as REST's JSON needs them. Raises `ServingError`."""
    signature = signature or PIXELS_SIGNATURE
    definition = loaded.model.signatures.get(signature)
    if definition is None:
        raise invalid(f'Serving signature name: "{signature}" not found in signature def')
    return {name: type_name(info.dtype) for name, info in definition.inputs.items()}


def refuse_examples(loaded: Loaded, signature: str, method: str) -> None:
    """Why `classify` and `regress` cannot be had: no version has a signature for them. Raises `ServingError`."""
    signature = signature or PIXELS_SIGNATURE
    definition = loaded.model.signatures.get(signature)
    if definition is None:
        raise invalid(f"No signature was found with the name: {signature}")
    kind = {"classify": "classification", "regress": "regression"}[method]
    raise invalid(
        f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: {definition.method_name}"
    )


def status(repository: Repository, which: Which) -> Any:
    """A `GetModelStatusResponse`. A label is not looked at, as in TF Serving. Raises `ServingError`."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for each in repository.statuses(which.name, which.version):
        item = response.model_version_status.add(version=each.version, state=each.state.value)
        item.status.error_code = each.code.grpc
        item.status.error_message = each.message
    return response


def metadata(repository: Repository, which: Which) -> tuple[Any, Any]:
    """A `GetModelMetadataResponse` without its map, and the `SignatureDefMap` that belongs in it under
    `signature_def`. Raises `ServingError`."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with repository.version(which.version, which.label, which.name) as loaded:
        response.model_spec.name = repository.name
        response.model_spec.version.value = loaded.number
        for name, definition in loaded.model.signatures.items():
            signatures.signature_def[name].CopyFrom(definition)
    return response, signatures
