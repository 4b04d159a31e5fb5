"""Exactly one of several writers puts an object that must be put once, on stores with and without If-None-Match."""

from __future__ import annotations

import time
from uuid import uuid4

from job.errors import UserError
from job.s3_objects import Objects

PROBE = ".probe-"
CLAIM = ".claim-"


def keeps_first(objects: Objects, folder: str) -> bool:
    """Whether the store refuses a second PUT with `If-None-Match: *`, found out with an object that is removed again.

    Amazon S3, MinIO, SeaweedFS and others do; some older stores ignore the header or answer an error to it.
    """
    key = f"{folder}/{PROBE}{uuid4().hex}"
    objects.put(key, b"")
    try:
        return not objects.put(key, b"", new=True)
    except UserError:
        # Refused for the header alone: without it, the same PUT has just worked.
        return False
    finally:
        objects.delete([key])


def put_once(objects: Objects, key: str, data: bytes, *, conditional: bool, attempts: int = 8) -> bool:
    """Puts an object unless there is one; False if there is. `data` must differ between any two writers.

    Raises:
        UserError: it is not known who has won, and no one will have until `sweep`.
    """
    if conditional:
        # A repeated request may meet what its first attempt has written: that is not somebody else's.
        return objects.put(key, data, new=True) or objects.get(key) == data
    return _put_claimed(objects, key, data, attempts)


def _put_claimed(objects: Objects, key: str, data: bytes, attempts: int) -> bool:
    """The rule where the store has no condition: whoever sees its own claim alone may write.

    A claim is listed from before its writer looks until after it has written. Of two writers, the one whose claim came
    second sees the first one's, or else what it has written. Both may see each other; then both withdraw and try again
    after a random pause. Needs listings that show every PUT that has returned, as Amazon S3 and its like promise.
    """
    folder = key.rpartition("/")[0]
    for attempt in range(attempts):
        claim = f"{folder}/{CLAIM}{uuid4().hex}"
        objects.put(claim, b"")
        others = [each for each in objects.list(f"{folder}/{CLAIM}") if each.key != claim]
        there = _there(objects, key)
        if not others and not there:
            # If this fails, the claim stays: nobody knows whether the store will still write it.
            objects.put(key, data)
        objects.delete([claim])
        if there or not others:
            return not there
        time.sleep(objects.pause(attempt + 1))
    raise UserError(
        f"{objects.name(folder)}: another writer is at work or has died there; try again, or, if nobody is, "
        f"remove the objects whose names begin with {CLAIM}"
    )


def _there(objects: Objects, key: str) -> bool:
    try:
        objects.get(key)
    except FileNotFoundError:
        return False
    return True
