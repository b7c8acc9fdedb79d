"""Read a WebDAV multistatus: which files and folders a server says are in a folder.

What a server sends is not trusted: entities and document types are refused, an address outside the
folder that was asked for is refused, and so is a name that could lead out of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hevcq.errors import Unavailable
from hevcq.ports.catalog import RemoteFile, RemoteFolder

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DAV = "{DAV:}"
OC = "{http://owncloud.org/ns}"
REQUEST = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns"><d:prop>'
    b"<d:getetag/><d:getcontentlength/><d:getlastmodified/><d:resourcetype/>"
    b"<oc:checksums/>"
    b"</d:prop></d:propfind>"
)
CHECKSUMS = frozenset({"md5", "sha1", "sha256"})
_STATUS = re.compile(r"HTTP/\S+ (\d{3})")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a multistatus: the parts of its path below the root, and its properties."""

    parts: tuple[str, ...]
    folder: bool
    file: RemoteFile | None


def etag(value: str | None) -> str:
    """Return an ETag without quotes, weakness mark and the suffix of a compressing proxy.

    Servers differ: one property is unquoted while the header is quoted, Apache's mod_deflate adds
    `-gzip`, nginx marks as weak what it compresses. What cannot be sent back in a header is none.
    """
    text = (value or "").strip().removeprefix("W/").strip('"')
    for suffix in ("-gzip", ";gzip", "-br", "--gzip"):
        text = text.removesuffix(suffix)
    plain = text.isascii() and text.isprintable() and '"' not in text
    return text if plain else ""


def parts_of(address: str) -> tuple[str, ...] | None:
    """Return the decoded parts of an address's path, or None if one of them is not a name.

    Parts are decoded after they are split, so that `%2F` cannot make two of one.
    """
    parts = tuple(
        unquote(part, errors="surrogateescape") for part in address.split("/") if part != ""
    )
    return (
        None if any(part in {".", ".."} or "/" in part or "\0" in part for part in parts) else parts
    )


def folder_of(content: bytes, root: tuple[str, ...], asked: tuple[str, ...]) -> RemoteFolder:
    """Return the listing of the folder `asked` (parts below `root`).

    Raises Unavailable if the content is not a multistatus.
    """
    folders: list[str] = []
    files: dict[str, RemoteFile] = {}
    refused: list[str] = []
    for address, found in resources(content, root):
        if found is None:
            refused.append(address)
        elif found.parts == asked:
            continue
        elif found.parts[:-1] != asked:
            refused.append(address)
        elif found.folder:
            folders.append("/".join(found.parts))
        elif found.file is not None:
            files[found.file.path] = found.file
    return RemoteFolder(tuple(dict.fromkeys(folders)), tuple(files.values()), tuple(refused))


def resources(content: bytes, root: tuple[str, ...]) -> Iterator[tuple[str, Resource | None]]:
    """Yield each address with its resource, or None where it is not one below `root`."""
    for response in _parse(content).iter(f"{DAV}response"):
        address = (response.findtext(f"{DAV}href") or "").strip()
        parts = _path_of(address)
        if parts is None or parts[: len(root)] != root:
            yield address, None
            continue
        yield address, _resource(response, parts[len(root) :])


def _path_of(address: str) -> tuple[str, ...] | None:
    try:
        return parts_of(urlsplit(address).path)
    except ValueError:  # such as a bracket that is not closed in the host
        return None


def _parse(content: bytes) -> Element:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        document: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise Unavailable("The server's listing cannot be read as WebDAV (XML).") from error
    if document.tag != f"{DAV}multistatus":
        raise Unavailable("The server did not answer with a WebDAV listing.")
    return document


def _resource(response: Element, parts: tuple[str, ...]) -> Resource:
    found: dict[str, Element] = {}
    for propstat in response.findall(f"{DAV}propstat"):
        status = _STATUS.match((propstat.findtext(f"{DAV}status") or "").strip())
        if status is not None and status[1] == "200":
            for prop in propstat.iterfind(f"{DAV}prop/*"):
                found[prop.tag] = prop
    kind = found.get(f"{DAV}resourcetype")
    if kind is not None and kind.find(f"{DAV}collection") is not None:
        return Resource(parts, folder=True, file=None)
    return Resource(parts, folder=False, file=_file(found, parts))


def _file(found: dict[str, Element], parts: tuple[str, ...]) -> RemoteFile | None:
    """Return the file, or None without a length: it cannot be known to have come whole."""
    length = _text(found, f"{DAV}getcontentlength")
    if not (length.isascii() and length.isdigit() and len(length) < 19) or not parts:
        return None
    version = _text(found, f"{DAV}getetag")
    return RemoteFile(
        path="/".join(parts),
        size=int(length),
        # A weak one may stay while the bytes change.
        etag="" if version.startswith("W/") else etag(version),
        modified=_time(_text(found, f"{DAV}getlastmodified")),
        checksums=_checksums(found.get(f"{OC}checksums")),
    )


def _text(found: dict[str, Element], tag: str) -> str:
    prop = found.get(tag)
    return "" if prop is None else (prop.text or "").strip()


def _time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _checksums(prop: Element | None) -> tuple[tuple[str, str], ...]:
    """Read `<oc:checksum>SHA1:… MD5:…</oc:checksum>`, what the uploader wrote of the bytes."""
    words = "" if prop is None else " ".join(prop.itertext())
    pairs = (word.partition(":") for word in words.split())
    return tuple(
        (name.lower(), value.lower()) for name, _, value in pairs if name.lower() in CHECKSUMS
    )
