"""The boto3 client of an `s3://` storage, and what its errors mean in one line. All configuration is boto3's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from job.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

POOL = 64
"""Connections a client keeps: more than any one reader's threads, so that two readers do not wait for each other."""

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
"""Error codes of credentials that were good once."""


@dataclass(frozen=True)
class Patience:
    """How long a store may take before it has failed. Times in seconds."""

    connect: float = 5.0
    """For a connection."""
    silence: float = 20.0
    """Without a byte."""
    body: float = 30.0
    """For a content, on top of its size divided by `rate`."""
    rate: float = 32_768.0
    """Bytes per second; a content that comes slower is asked for again."""
    requests: int = 4
    """Attempts at a request, made by boto3."""
    attempts: int = 5
    """At a content that arrives broken, made here."""
    pause: float = 0.25
    """Before the second attempt at a content; doubles with each, up to 20, and is cut by a random share."""
    check: float = 12.0
    """For the first contact."""


def connect(patience: Patience) -> S3Client:
    """A client with boto3's own configuration: environment, profile, role, endpoint, region, addressing, custom CA.

    Retries of requests are boto3's (standard mode unless configured); `AWS_MAX_ATTEMPTS` and its like win over
    `patience.requests`.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    core = botocore.session.get_session()
    config = Config(connect_timeout=patience.connect, read_timeout=patience.silence, max_pool_connections=POOL)
    if core.get_config_variable("max_attempts") is None:
        config = config.merge(Config(retries={"total_max_attempts": patience.requests}))
    return boto3.Session(botocore_session=core).client("s3", config=config)


def first_contact(url: str, bucket: str, prefix: str, patience: Patience) -> S3Client:
    """A client that has listed one key of the bucket. Raises `UserError` within about `patience.check` seconds."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    def try_out() -> S3Client:
        client = connect(patience)
        try:
            client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except ClientError as error:
            # Whoever may only read or only write is told by the operation that is refused, if one is.
            if code_of(error) != "AccessDenied":
                raise
        return client

    try:
        return within(patience.check, try_out)
    except (ClientError, BotoCoreError, ResponseParserError, TimeoutError, ValueError) as error:
        raise explained(error, url, bucket) from error


def within(seconds: float, function: Callable[[], T]) -> T:
    """The result of `function`, or `TimeoutError`. No timeout of sockets covers a resolver or a credential helper that
    hangs, hence the thread, which a process that exits does not wait for."""
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True, name="s3-first-contact").start()
    return result.result(timeout=seconds)


def code_of(error: Exception) -> str:
    """The error code of a store's answer, "" for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def endpoint_of(client: S3Client) -> str:
    """Where the client sends its requests, without a user or password that the URL may hold."""
    parts = urlsplit(client.meta.endpoint_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


_ANSWERS = {
    "NoSuchBucket": "there is no bucket {bucket}; create it or correct the name",
    "InvalidBucketName": "{bucket} is no name for a bucket",
    "InvalidAccessKeyId": "the store does not know the access key; correct AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret is not that of the access key; correct AWS_SECRET_ACCESS_KEY or the profile",
    "InvalidToken": "the session token is not valid; renew the credentials (AWS_SESSION_TOKEN)",
    "AccessDenied": "the credentials do not allow this; see the policies in docs/storage.md",
    "AllAccessDisabled": "the bucket is closed to everybody",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "EntityTooLarge": "larger than the store takes in one piece",
    "SlowDown": "the store asks to slow down, also after several attempts",
    "InternalError": "the store failed, also after several attempts",
    "ServiceUnavailable": "the store is not available, also after several attempts",
    "QuotaExceeded": "no space left: the bucket's quota is used up",
    "XMinioStorageFull": "no space left on the store",
}
_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}


def explained(error: Exception, where: str, bucket: str) -> UserError:
    """What an error of boto3 or of the store means for the user, in one line that begins with `where`.

    The error's own text is used as little as possible: it may quote what was sent.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    code = code_of(error)
    if code in EXPIRED:
        return UserError(f"{where}: the credentials have expired; renew them and start again")
    if code in _REGION:
        details = getattr(error, "response", {})
        headers = details.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        right = details.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
        return UserError(f"{where}: wrong region; set AWS_REGION{f'={right}' if right else ' to that of the bucket'}")
    if code in _ANSWERS:
        return UserError(f"{where}: {_ANSWERS[code].format(bucket=bucket)}")
    if code:
        hint = "; is AWS_ENDPOINT_URL that of an S3 store?" if code.isdecimal() else ""
        return UserError(f"{where}: the store answers {code}{hint}")
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.NoAuthTokenError):
        return UserError(f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    if isinstance(error, boto.ProfileNotFound):
        return UserError(f"{where}: AWS_PROFILE names a profile that does not exist")
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        return UserError(f"{where}: the credentials cannot be had ({type(error).__name__}); log in again")
    if isinstance(error, boto.ParamValidationError):
        return UserError(f"{where}: {bucket} is no name for a bucket")
    if isinstance(error, boto.SSLError):
        return UserError(f"{where}: the endpoint's certificate is not trusted; set AWS_CA_BUNDLE to the file of its CA")
    if isinstance(error, boto.ProxyConnectionError):
        return UserError(f"{where}: the proxy cannot be reached; correct HTTPS_PROXY")
    unreachable = boto.ConnectionError | boto.ConnectionClosedError | boto.ReadTimeoutError | TimeoutError
    if isinstance(error, unreachable):
        return UserError(f"{where}: the endpoint cannot be reached ({cause(error)}); correct AWS_ENDPOINT_URL")
    if isinstance(error, ValueError):
        return UserError(f"{where}: AWS_ENDPOINT_URL is not a URL such as https://storage.example.com:9000")
    if isinstance(error, ResponseParserError):
        return UserError(f"{where}: what answers at AWS_ENDPOINT_URL is no S3 store; correct it")
    return UserError(f"{where}: {cause(error)}")


def cause(error: Exception) -> str:
    """A few words for a technical cause, without what the error may quote."""
    from botocore import exceptions as boto

    words: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        ((boto.ConnectTimeoutError, TimeoutError), "no answer in time"),
        (boto.ReadTimeoutError, "it went silent"),
        (boto.EndpointConnectionError, "no connection"),
        (boto.ConnectionClosedError, "it closed the connection"),
        (boto.IncompleteReadError, "cut off"),
        (boto.ResponseStreamingError, "the connection broke"),
        (boto.FlexibleChecksumError, "the checksum does not match"),
    )
    return next((text for kinds, text in words if isinstance(error, kinds)), type(error).__name__)
