"""The file system that Ray Train's own storage uses, configured like boto3 is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from job.s3 import parse
from job.s3_client import Patience, connect, explained

_FOUND_BY_ARROW = {"env", "shared-credentials-file", "iam-role", "container-role", "assume-role-with-web-identity"}
"""Ways in which boto3 finds credentials that Arrow knows as well, and by which it renews them."""


def pyarrow_filesystem(url: str) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` for a folder or an `s3://bucket/prefix`, and the path of that place in it.

    Endpoint, region, addressing and CA are boto3's. So are the credentials: where Arrow finds them by itself (the
    environment, the credentials file, roles of instances, containers and web identities) it is left to, so that no
    secret travels with the object when it is pickled, and temporary ones are renewed. From other sources (SSO, a
    profile that assumes a role, a helper process) it gets those of this moment, which last as long as they last.

    Raises:
        UserError: boto3's configuration is unusable.
    """
    from pyarrow import fs

    if not url.startswith("s3://"):
        return fs.LocalFileSystem(), str(Path(url).expanduser().absolute())
    bucket, prefix = parse(url)
    options = _options(url, bucket)
    return fs.S3FileSystem(**options), f"{bucket}/{prefix}".rstrip("/")


def _options(url: str, bucket: str) -> dict[str, Any]:
    """The arguments of `pyarrow.fs.S3FileSystem` that say what boto3's configuration says."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.get_session()
        client = connect(Patience())
        credentials = session.get_credentials()
        addressing = (session.get_config_variable("s3") or {}).get("addressing_style")
        options: dict[str, Any] = {"region": client.meta.region_name}
        if credentials is not None and credentials.method not in _FOUND_BY_ARROW:
            now = credentials.get_frozen_credentials()
            options |= {"access_key": now.access_key, "secret_key": now.secret_key, "session_token": now.token}
    except (BotoCoreError, ValueError) as error:
        raise explained(error, url, bucket) from error
    endpoint = urlsplit(client.meta.endpoint_url)
    if not (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        options |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
        options["force_virtual_addressing"] = addressing == "virtual"
    # Arrow takes Amazon's default region from nowhere else, and asks the network for it.
    if options["region"] in (None, "aws-global"):
        options["region"] = "us-east-1"
    bundle = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return options | ({"tls_ca_file_path": bundle} if bundle else {})
