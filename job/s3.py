"""S3-compatible storage: the same contract as a folder."""

from job.errors import UserError


class S3Storage:
    """Not there yet: every use is refused."""

    def __init__(self, url: str) -> None:
        raise UserError(f"{url}: s3:// is not supported yet, use a folder")
