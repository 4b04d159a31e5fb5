"""What a server answers when it cannot answer: gRPC's status codes, and the HTTP codes TF Serving gives for them."""

from __future__ import annotations

import re
from enum import Enum


class Code(Enum):
    """A status: its gRPC number and the HTTP code that stands for it over REST."""

    OK = (0, 200)
    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)

    @property
    def grpc(self) -> int:
        """The number in gRPC's and absl's status."""
        return self.value[0]

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.value[1]


class ServingError(Exception):
    """A request that is refused, with the status to answer it with."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServingError:
    """The caller's mistake."""
    return ServingError(Code.INVALID_ARGUMENT, message)


_BY_NUMBER = {code.grpc: code for code in Code}


def from_tensorflow(error: Exception) -> ServingError:
    """The status of a `tf.errors.OpError`, without what Python's session adds to the runtime's own message."""
    code = _BY_NUMBER.get(int(getattr(error, "error_code", Code.UNKNOWN.grpc)), Code.UNKNOWN)
    message = re.sub(r"^Graph execution error:\s*", "", str(getattr(error, "message", error)))
    return ServingError(code, re.split(r"\n\nOriginal stack trace", message)[0].strip())
