"""Tell whether an object is in a bucket, also where S3 answers 403 for what does not exist.

S3 says 404 for a missing key only to a caller with an unconditional s3:ListBucket, otherwise 403
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html). The roles of workers may
list only their own prefixes, so that one profile does not learn the names of another's videos, and a
condition on `s3:prefix` never holds for HeadObject. A listing of the very key then decides, because
for it the condition holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from hevcq.backends.aws.errors import DENIED, code_of, translate_errors
from hevcq.errors import Unavailable
from hevcq.util.log import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

ABSENT = frozenset({"404", "NoSuchKey"})


def find_object(
    s3: S3Client, bucket: str, key: str, *, unknown_is_absent: bool
) -> HeadObjectOutputTypeDef | None:
    """Return the answer of HeadObject for the newest object at `key`, or None if there is none.

    Where neither HeadObject nor a listing is allowed, `unknown_is_absent` decides: it may be set
    only where the next write is conditional on the object's absence, or is repeatable. Raises
    Unavailable if the object exists but may not be read, or if this is unknown.
    """
    with translate_errors(f"look at {key!r} in the bucket {bucket}"):
        try:
            return s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            if code_of(error) not in DENIED:
                raise
            listed = _is_listed(s3, bucket, key)
            if listed is False or (listed is None and unknown_is_absent):
                return None
            raise


def _is_listed(s3: S3Client, bucket: str, key: str) -> bool | None:
    """Return whether a listing shows the key; None if listing is denied as well."""
    try:
        with translate_errors(f"list {key!r} in the bucket {bucket}"):
            # In a listing's order, no other key with this prefix comes before the key itself.
            found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except Unavailable as error:
        if code_of(error.__cause__) not in DENIED:
            raise
        get_logger().debug("presence_unknown", bucket=bucket, key=key)
        return None
    return any(entry["Key"] == key for entry in found.get("Contents", []))
