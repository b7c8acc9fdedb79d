"""CloudFront for the emulator: what the provider writes is kept as it was sent, and given back.

moto 5.2 knows distributions and origin access controls only, and keeps a part of each. This holds
every configuration as its XML, and refuses what AWS refuses where a mistake of ours could show:
a name twice, a policy or control that is not there or still in use, a change without the newest
ETag, and the deletion of a distribution that is enabled.
(https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_Operations.html)
"""

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

VERSION = "2020-05-31"
SPACE = f"http://cloudfront.amazonaws.com/doc/{VERSION}/"
ACCOUNT = "123456789012"
ROOTS = {
    "cache-policy": "CachePolicy",
    "origin-request-policy": "OriginRequestPolicy",
    "response-headers-policy": "ResponseHeadersPolicy",
    "origin-access-control": "OriginAccessControl",
    "distribution": "Distribution",
}
REFERENCES = {
    "CachePolicyId": "cache-policy",
    "OriginRequestPolicyId": "origin-request-policy",
    "ResponseHeadersPolicyId": "response-headers-policy",
    "OriginAccessControlId": "origin-access-control",
}
"""What of a distribution's configuration names another thing by its id."""
LISTS = ("Aliases", "CacheBehaviors", "CustomErrorResponses", "OriginGroups")
"""What AWS names in a distribution's configuration though it was sent without: empty."""
Answer = tuple[int, dict[str, str], str]


class Refused(Exception):
    """An error in CloudFront's words: its HTTP status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class Kept:
    """One thing that was made, its configuration as it was sent."""

    kind: str
    id: str
    config: ElementTree.Element
    etag: str
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:cloudfront::{ACCOUNT}:{self.kind}/{self.id}"

    def ids(self) -> set[tuple[str, str]]:
        """Return what this names by id: (kind, id)."""
        return {
            (kind, each.text)
            for name, kind in REFERENCES.items()
            for each in self.config.iter(f"{{{SPACE}}}{name}")
            if each.text
        }


class CloudFront:
    """Every configuration of one account."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Kept] = {}
        self._ids = (f"E{number:013d}" for number in itertools.count(1))
        self._lock = threading.RLock()

    def answer(self, request: Any, _url: str = "", _headers: Any = None) -> Answer:
        """Answer one HTTP request as moto's views are asked."""
        path = str(request.path).partition(f"/{VERSION}/")[2].strip("/").split("/")
        with self._lock:
            try:
                if path[0] == "tagging":
                    return self._tagging(request)
                if path[0] not in ROOTS:
                    raise Refused(400, "InvalidAction")
                if len(path) == 1:
                    return self._make(path[0], request.get_data())
                return self._look_or_change(request, path[0], path[1])
            except Refused as why:
                return why.status, {}, _error(why.code)

    def _make(self, kind: str, body: bytes) -> Answer:
        sent = ElementTree.fromstring(body)
        tags = _pairs(sent)
        if sent.tag.endswith("ConfigWithTags"):
            sent = next(each for each in sent if each.tag.endswith("Config"))
        kept = Kept(kind, next(self._ids), sent, next(self._ids), tags)
        self._check(kept)
        self._kept[kind, kept.id] = kept
        where = f"https://cloudfront.amazonaws.com/{VERSION}/{kind}/{kept.id}"
        return 201, {"ETag": kept.etag, "Location": where}, _shown(kept)

    def _look_or_change(self, request: Any, kind: str, name: str) -> Answer:
        kept = self._kept.get((kind, name))
        if kept is None:
            raise Refused(404, f"NoSuch{ROOTS[kind]}")
        if request.method == "GET":
            return 200, {"ETag": kept.etag}, _shown(kept)
        if request.headers.get("If-Match") != kept.etag:
            raise Refused(412, "PreconditionFailed")
        if request.method == "PUT":
            new = ElementTree.fromstring(request.get_data())
            changed = Kept(kind, name, new, next(self._ids), kept.tags)
            self._check(changed)
            self._kept[kind, name] = changed
            return 200, {"ETag": changed.etag}, _shown(changed)
        if kind == "distribution" and kept.config.findtext(f"{{{SPACE}}}Enabled") == "true":
            raise Refused(409, "DistributionNotDisabled")
        if any((kind, name) in other.ids() for other in self._kept.values()):
            raise Refused(409, f"{ROOTS[kind]}InUse")
        del self._kept[kind, name]
        return 204, {}, ""

    def _check(self, new: Kept) -> None:
        for kind, name in new.ids():
            if (kind, name) not in self._kept:
                raise Refused(404, f"NoSuch{ROOTS[kind]}")
        title = new.config.findtext(f"{{{SPACE}}}Name")
        for other in self._kept.values():
            same = (other.kind, other.config.findtext(f"{{{SPACE}}}Name")) == (new.kind, title)
            if title and same and other.id != new.id:
                raise Refused(409, f"{ROOTS[new.kind]}AlreadyExists")

    def _tagging(self, request: Any) -> Answer:
        arn = request.args.get("Resource")
        kept = next((each for each in self._kept.values() if each.arn == arn), None)
        if kept is None:
            raise Refused(404, "NoSuchResource")
        if request.method == "GET":
            items = "".join(_tag(name, value) for name, value in kept.tags.items())
            return 200, {}, f'<Tags xmlns="{SPACE}"><Items>{items}</Items></Tags>'
        sent = ElementTree.fromstring(request.get_data())
        kept.tags |= _pairs(sent)
        if request.args.get("Operation") == "Untag":
            for each in sent.iter(f"{{{SPACE}}}Key"):
                kept.tags.pop(each.text or "", None)
        return 204, {}, ""


def install() -> None:
    """Let moto's server ask this for everything of CloudFront; before its first request."""
    from moto.cloudfront import urls

    urls.url_paths = {rf"{{0}}/{VERSION}/(?P<rest>.+)$": CloudFront().answer}


def _pairs(sent: ElementTree.Element) -> dict[str, str]:
    return {
        each.findtext(f"{{{SPACE}}}Key") or "": each.findtext(f"{{{SPACE}}}Value") or ""
        for each in sent.iter(f"{{{SPACE}}}Tag")
    }


def _tag(name: str, value: str) -> str:
    tag = ElementTree.Element("Tag")
    ElementTree.SubElement(tag, "Key").text = name
    ElementTree.SubElement(tag, "Value").text = value
    return ElementTree.tostring(tag, encoding="unicode")


def _shown(kept: Kept) -> str:
    # The provider's reader takes names without a prefix.
    config = ElementTree.tostring(kept.config, encoding="unicode")
    config = re.sub(r' xmlns:ns\d+="[^"]*"', "", re.sub(r"(</?)ns\d+:", r"\1", config))
    more = ""
    if kept.kind == "distribution":
        none = "<Enabled>false</Enabled><Quantity>0</Quantity>"
        more = (
            f"<ARN>{kept.arn}</ARN><Status>Deployed</Status>"
            "<InProgressInvalidationBatches>0</InProgressInvalidationBatches>"
            f"<DomainName>{kept.id.lower()}.cloudfront.net</DomainName>"
            f"<ActiveTrustedSigners>{none}</ActiveTrustedSigners>"
            f"<ActiveTrustedKeyGroups>{none}</ActiveTrustedKeyGroups>"
        )
        said = {each.tag.rpartition("}")[2] for each in kept.config}
        empty = [f"<{n}><Quantity>0</Quantity></{n}>" for n in LISTS if n not in said]
        end = "</DistributionConfig>"
        config = config.replace(end, "".join([*empty, end]))
    root = ROOTS[kept.kind]
    return (
        f'<?xml version="1.0"?>\n<{root} xmlns="{SPACE}"><Id>{kept.id}</Id>{more}'
        f"<LastModifiedTime>2026-01-01T00:00:00Z</LastModifiedTime>{config}</{root}>"
    )


def _error(code: str) -> str:
    return (
        f'<?xml version="1.0"?>\n<ErrorResponse xmlns="{SPACE}"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{code}</Message></Error>"
        "<RequestId>emulated</RequestId></ErrorResponse>"
    )
