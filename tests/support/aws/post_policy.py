"""Check a browser's POST against its signed policy, as S3 does and moto does not.

The rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNNAMED = frozenset({"policy", "x-amz-signature", "file", "bucket"})
"""Fields that no condition has to name; the bucket comes from the address."""


def signed(fields: Mapping[str, str], secret: str) -> bool:
    """Return whether the policy is signed by `secret` (signature version 4)."""
    _, day, region, service, end = fields["x-amz-credential"].split("/")
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, end, fields["policy"]):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.compare_digest(key.hex(), fields["x-amz-signature"])


def why_refused(fields: Mapping[str, str], bucket: str, size: int, now: datetime) -> str:
    """Return the rule that a POST of `size` bytes with these fields breaks, or ""."""
    policy = json.loads(base64.b64decode(fields["policy"]))
    if now >= datetime.strptime(policy["expiration"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC):
        return "expired"
    given = {name.lower(): value for name, value in fields.items()} | {"bucket": bucket}
    named: set[str] = set()
    for condition in policy["conditions"]:
        if why := _why_broken(condition, given, size, named):
            return why
    extra = set(given) - named - UNNAMED
    return f"fields without a condition: {sorted(extra)}" if extra else ""


def _why_broken(condition: Any, given: Mapping[str, str], size: int, named: set[str]) -> str:
    if isinstance(condition, dict):
        ((name, value),) = condition.items()
        kind = "eq"
    else:
        kind, name, value = condition
        if kind == "content-length-range":
            return "" if int(name) <= size <= int(value) else "size"
        name = name.removeprefix("$")
    named.add(name.lower())
    found = given.get(name.lower())
    if found is None:
        return f"{name} is missing"
    fits = found == value if kind == "eq" else found.startswith(value)
    return "" if fits else f"{name} is not allowed"
