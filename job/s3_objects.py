"""Objects of one bucket below one prefix: listed, read, written and deleted, each whole and checked or with one line.

boto3 retries requests that fail; what it leaves to us is a content that arrives cut off, broken, or too slowly.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from job.errors import UserError
from job.files import ChangedFile, Entry
from job.s3_client import EXPIRED, Patience, cause, code_of, explained, first_contact

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_MD5 = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000  # keys a listing or a deletion may hold, by the protocol
_LARGEST = 5 * 1024**3  # bytes of one PUT, by the protocol


_REFUSED = {"PreconditionFailed": False, "412": False, "ConditionalRequestConflict": None, "409": None}
"""What a conditional PUT means by its error: somebody was first, or (Amazon S3) try again."""


class Object(NamedTuple):
    """One object of a listing; the key is what follows the prefix."""

    key: str
    size: int
    etag: str
    modified: float
    """Seconds since 1970, by the store's clock."""


class _Broken(Exception):
    """A content that did not arrive as it is stored; worth another attempt."""


class Objects:
    """The objects whose keys begin with a prefix ("" or ending in "/"). Safe to use from many threads."""

    def __init__(self, url: str, bucket: str, prefix: str, patience: Patience) -> None:
        self._url, self._bucket, self._prefix, self._patience = url, bucket, prefix, patience
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def client(self) -> S3Client:
        """The one client, made and tried out on first use. Raises `UserError` if the bucket cannot be reached."""
        with self._lock:
            if self._client is None:
                self._client = first_contact(self._url, self._bucket, self._prefix, self._patience)
            return self._client

    def name(self, key: str) -> str:
        """The object as messages call it."""
        return f"{self._url}/{key}" if key else self._url

    def list(self, prefix: str) -> Iterator[Object]:
        """The objects whose keys begin with `prefix`, in the store's order, a page of 1000 in memory at a time."""
        token: dict[str, Any] = {}

        def ask(client: S3Client) -> Any:
            return client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=_PAGE, **token)

        while True:
            page = self._try(self.name(prefix), ask)
            for each in page.get("Contents", []):
                yield Object(
                    each["Key"][len(self._prefix) :],
                    each["Size"],
                    each["ETag"].strip('"'),
                    each["LastModified"].timestamp(),
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, key: str, expected: Entry | None = None) -> bytes:
        """An object's content. Raises `FileNotFoundError`, or `ChangedFile` if it is not the one expected."""
        last = ""
        for attempt in range(self._patience.attempts):
            if attempt:
                time.sleep(self.pause(attempt))
            try:
                return self._get(key, expected)
            except _Broken as error:
                last = str(error)
        raise UserError(
            f"{self.name(key)}: cannot be read, {self._patience.attempts} attempts failed; at the last: {last}"
        )

    def put(self, key: str, data: bytes | Path, *, new: bool = False) -> bool:
        """Makes or replaces an object. With `new`, asks the store to refuse if there is one: False if it did."""
        from botocore.exceptions import ClientError

        condition: dict[str, Any] = {"IfNoneMatch": "*"} if new else {}
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{self.name(key)}: {size:,} bytes, more than the {_LARGEST:,} one object can be sent with")

        def send(client: S3Client) -> bool | None:
            try:
                if isinstance(data, bytes):
                    client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition)
                else:
                    with data.open("rb") as file:
                        client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=file, **condition)
            except ClientError as error:
                if new and code_of(error) in _REFUSED:
                    return _REFUSED[code_of(error)]
                raise
            return True

        for attempt in range(self._patience.attempts):
            time.sleep(self.pause(attempt) if attempt else 0)
            answer = self._try(self.name(key), send)
            if answer is not None:
                return answer
        raise UserError(f"{self.name(key)}: cannot be written, others keep writing it at the same moment")

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; those that are not there do not matter."""
        batch: list[str] = []
        for key in keys:
            batch.append(key)
            if len(batch) == _PAGE:
                self._delete(batch)
                batch = []
        if batch:
            self._delete(batch)

    def pause(self, attempt: int) -> float:
        """Seconds to wait before an attempt: a random share of what doubles, so that many readers spread out."""
        return random.uniform(0, min(20.0, self._patience.pause * 2**attempt))

    def _delete(self, keys: Sequence[str]) -> None:
        objects: list[Any] = [{"Key": self._prefix + key} for key in keys]

        def ask(client: S3Client) -> Any:
            return client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

        answer = self._try(self.name(keys[0]), ask)
        for failed in answer.get("Errors", []):
            raise UserError(f"{self.name(failed['Key'][len(self._prefix) :])}: cannot be removed: {failed['Code']}")

    def _get(self, key: str, expected: Entry | None) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        name = self.name(key)
        condition: dict[str, Any] = {"IfMatch": f'"{expected.tag}"'} if expected else {}

        def ask(client: S3Client) -> Any:
            try:
                return client.get_object(Bucket=self._bucket, Key=self._prefix + key, **condition)
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "404"):
                    return None
                if code_of(error) in ("PreconditionFailed", "412"):
                    raise ChangedFile(
                        f"{name}: changed since it was listed; start again when nobody writes there"
                    ) from error
                raise

        answer = self._try(name, ask)
        if answer is None:
            if expected:
                raise ChangedFile(f"{name}: gone since it was listed; put it back or start again")
            raise FileNotFoundError(name)
        etag, size, body = answer["ETag"].strip('"'), answer["ContentLength"], answer["Body"]
        if expected and (etag, size) != (expected.tag, expected.size):
            body.close()
            raise ChangedFile(f"{name}: changed since it was listed; start again when nobody writes there")
        try:
            with _no_longer_than(self._patience.body + size / self._patience.rate, body):
                data: bytes = body.read()
        except (BotoCoreError, OSError) as error:
            raise _Broken(cause(error)) from error
        finally:
            body.close()
        if len(data) != size:
            raise _Broken(f"{len(data)} bytes instead of {size}")
        # With encryption by a key of one's own, or sent in parts, the ETag is not the MD5.
        plain = answer.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in answer
        if plain and _MD5.fullmatch(etag) and hashlib.md5(data, usedforsecurity=False).hexdigest() != etag:
            raise _Broken("the content does not match its ETag")
        return data

    def _try(self, name: str, ask: Callable[[S3Client], T]) -> T:
        """The answer to a request. Credentials that have expired are looked for afresh, once: whoever renews a
        profile's file need not restart the run."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        for fresh in (False, True):
            client = self.client()
            try:
                return ask(client)
            except (ClientError, BotoCoreError, ResponseParserError) as error:
                if code_of(error) not in EXPIRED or fresh:
                    raise explained(error, name, self._bucket) from error
            with self._lock:
                if self._client is client:
                    self._client = None
        raise AssertionError  # the loop returns or raises


class _no_longer_than:
    """Ends the reading of a body that drips: no timeout between two bytes ever ends that."""

    def __init__(self, seconds: float, body: Any) -> None:
        self._body = body
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        # A body read to its end in this very moment has no socket any more.
        with suppress(AttributeError, OSError):
            self._body.set_socket_timeout(1e-3)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
