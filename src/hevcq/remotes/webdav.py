"""List, read and delete files of a WebDAV server, one version at a time.

Every request that depends on a version has an `If-Match`. No redirect is followed, because each request
carries the password.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import httpx2 as http

from hevcq.errors import (
    ConfigError,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    UsageError,
)
from hevcq.ports.catalog import Body, RemoteFile, RemoteFolder, Removal
from hevcq.util.text import printable, reason_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TIMEOUT = http.Timeout(60.0, connect=15.0)
LISTING_BYTES = 256 * 1024 * 1024
"""Maximum size of a listing: about 300,000 files in one folder."""
NEXTCLOUD = "remote.php/dav/files"
PROBE_PREFIX = ".hevcq-probe-"
PROBE_BYTES = b"hevcq tries here whether this server honours If-Match; this file may be deleted.\n"
WRONG_ETAG = "hevcq-not-the-version"
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_COUNT = re.compile(r"[0-9]{1,19}")
_BUSY = {
    423: "has it locked",
    429: "asks to slow down",
    507: "has no space left",
    503: "is not available now (maintenance?)",
}


class WebDavRemote:
    """The files of one WebDAV account.

    `url` may also be the address of a Nextcloud. Every method raises Unavailable if the server does not
    answer, is busy or has locked a file, and ConfigError if it does not accept the user or the password.
    No error and no log line contains the password.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        ca_file: Path | None = None,
        transport: http.BaseTransport | None = None,
    ) -> None:
        self._url, self._user = url, user
        self._base = f"{url.rstrip('/')}/"
        self._client = http.Client(
            auth=(user, password) if user else None,
            timeout=TIMEOUT,
            verify=_tls_context(ca_file),
            transport=transport,
            trust_env=False,  # no password from a .netrc, no proxy from the environment
            follow_redirects=False,
            headers={"User-Agent": "hevcq", "Accept-Encoding": "identity"},
        )
        self._is_located = False

    @property
    def account(self) -> str:
        """Identifies the account whatever its name in the settings: address without scheme, and user."""
        parts = urlsplit(self._url)
        return f"{(parts.hostname or '').lower()}:{parts.port or ''}{parts.path.rstrip('/')}|{self._user}"

    @property
    def server(self) -> str:
        return printable(urlsplit(self._base).netloc)

    def folder(self, path: str) -> RemoteFolder:
        """List one folder without its subfolders' content. Raises UsageError if it does not exist."""
        listing = self._propfind(path, "1")
        if listing is None:
            raise UsageError(
                f"{self.server} has no folder {printable(path) or '/'}.",
                remedy="Check `folders` and `url` of this sync.",
            )
        root = path_parts(urlsplit(self._base).path) or ()
        folder = tuple(part for part in path.split("/") if part)
        return parse_listing(listing, root, folder)

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file at a path, or None."""
        listing = self._propfind(path, "0")
        if listing is None:
            return None
        root, asked = path_parts(urlsplit(self._base).path) or (), tuple(path.split("/"))
        for _, parts, properties in iterate_resources(listing, root):
            if parts == asked and not _is_folder(properties):
                return _file(properties, asked)
        return None

    @contextlib.contextmanager
    def read(self, file: RemoteFile, start: int) -> Iterator[Body]:
        """Open this version of a file by If-Match, from byte `start` on.

        The body starts at 0 if the server cannot send a part. Raises SourceChanged if the server has
        another version, SourceGone if it has none, SourceUnreadable if it refuses. The caller must check
        the length of the body.
        """
        headers = _if_match(file.etag)
        if start:
            headers["Range"] = f"bytes={start}-"
        with self._open("GET", self._address(file.path), headers) as response:
            begin = self._body_start(response, file, start)
            yield Body(begin, self._blocks(response))

    def remove(self, file: RemoteFile) -> Removal:
        """Delete this version of a file by If-Match; call it only where `unsafe_to_remove` returned ""."""
        if not file.etag:
            return Removal.REFUSED
        status = self._status("DELETE", file.path, _if_match(file.etag))
        match status:
            case 404 | 410:
                return Removal.GONE
            case 412:
                return Removal.CHANGED
            case _ if 200 <= status < 300:
                return Removal.REMOVED
        self._raise_if_busy(status)
        return Removal.REFUSED

    def unsafe_to_remove(self, folders: Sequence[str], token: str, target: Path) -> str:
        """Return why the server might delete a version that it was not asked to, or "".

        This creates a small file in each of `folders`, with `token` in its name, and deletes it: with a
        wrong version the server must answer 412, with the right one 2xx. If the file appears in or above
        `target`, the server would also delete fetched files. Raises Unavailable if the server has no space.
        """
        flaws = (self._deletion_flaw(folder, token, target) for folder in folders)
        return next(filter(None, flaws), "")

    def _deletion_flaw(self, folder: str, token: str, target: Path) -> str:
        path = "/".join(part for part in (folder, f"{PROBE_PREFIX}{token}.txt") if part)
        status = self._status("PUT", path, {}, PROBE_BYTES)
        if not 200 <= status < 300:
            self._raise_if_busy(status)
            return f"it allows no file to be made in {printable(folder) or '/'} (HTTP {status})"
        in_storage = _is_visible_in(path, target.resolve())
        probe = self.stat(path)
        if in_storage or probe is None or not probe.etag:
            self._status("DELETE", path, {})
            storage = f"{printable(target)} is in the server's own storage"
            return storage if in_storage else "it gives no ETags"
        status = self._status("DELETE", path, _if_match(WRONG_ETAG))
        if status != 412:
            self._status("DELETE", path, {})
            if 200 <= status < 300 or status == 404:
                return "it deletes a file whatever version was asked for (it ignores If-Match)"
            return f"it does not delete a file by its ETag (HTTP {status})"
        status = self._status("DELETE", path, _if_match(probe.etag))
        if self.stat(path) is None:
            return ""
        return f"it does not delete a file by its own ETag (HTTP {status})"

    def close(self) -> None:
        """Close connections; may be called twice."""
        self._client.close()

    def _propfind(self, path: str, depth: str) -> bytes | None:
        self._locate_root()
        address = self._address(path)
        if depth == "1":  # servers redirect a folder's address without a slash
            address = f"{address.rstrip('/')}/"
        headers = {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"}
        with self._open("PROPFIND", address, headers, REQUEST) as response:
            if response.status_code in {404, 410}:
                return None
            if response.status_code != 207:
                self._raise_if_busy(response.status_code)
                location = printable(response.headers.get("Location", ""))
                raise ConfigError(
                    f"{self.server} did not list {printable(path) or '/'} (HTTP {response.status_code}"
                    f"{', it redirects to ' if location else ''}{location}).",
                    remedy="Is `url` the address of a Nextcloud, or of a WebDAV folder?",
                )
            return self._content(response)

    def _content(self, response: http.Response) -> bytes:
        content = bytearray()
        for block in self._blocks(response):
            content += block
            if len(content) > LISTING_BYTES:
                raise Unavailable(f"{self.server} sent a listing without end.")
        return bytes(content)

    def _locate_root(self) -> None:
        """Use a Nextcloud's WebDAV address if the given address serves no WebDAV itself."""
        if self._is_located:
            return
        if "/remote.php/" not in self._base and self._user:
            nextcloud = f"{self._base}{NEXTCLOUD}/{quote(self._user, safe='')}/"
            if not self._lists(self._base) and self._lists(nextcloud):
                self._base = nextcloud
        self._is_located = True

    def _lists(self, address: str) -> bool:
        with self._open("PROPFIND", address, {"Depth": "0"}, REQUEST) as response:
            return bool(response.status_code == 207)

    def _address(self, path: str) -> str:
        return self._base + quote(path, safe="/", errors="surrogateescape")

    def _body_start(self, response: http.Response, file: RemoteFile, start: int) -> int:
        """Return at which byte the body starts; raise if it is not of this version."""
        status, name = response.status_code, printable(file.path)
        if status in {404, 410}:
            raise SourceGone(f"{name} is no longer on {self.server}.")
        if status in {412, 416}:
            raise SourceChanged(f"{name} was changed on {self.server} meanwhile.")
        if status not in {200, 206}:
            self._raise_if_busy(status)
            raise SourceUnreadable(f"{self.server} refuses to send {name} (HTTP {status}).")
        etag = plain_etag(response.headers.get("ETag"))
        if file.etag and etag and etag != file.etag:
            raise SourceChanged(f"{name} was changed on {self.server} meanwhile.")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise SourceUnreadable(f"{self.server} sends {name} compressed, although not asked to.")
        begin = start if status == 206 else 0
        if status == 206:
            content_range = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if (
                content_range is None
                or int(content_range[1]) != start
                or content_range[3] not in {"*", str(file.size)}
            ):
                raise Unavailable(f"{self.server} sent another part of {name} than asked for.")
        length = response.headers.get("Content-Length", "")
        if _COUNT.fullmatch(length) and int(length) != file.size - begin:
            raise SourceChanged(
                f"{name} is listed with {file.size} bytes on {self.server}, which sends "
                f"{int(length) + begin}."
            )
        return begin

    def _blocks(self, response: http.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_raw()  # unbuffered: a broken connection would lose a buffer
        except http.HTTPError as error:
            raise Unavailable(f"{self.server} broke the connection: {_describe(error)}.") from error

    def _status(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes = b""
    ) -> int:
        with self._open(method, self._address(path), headers, content) as response:
            return int(response.status_code)

    @contextlib.contextmanager
    def _open(
        self, method: str, address: str, headers: Mapping[str, str], content: bytes = b""
    ) -> Iterator[http.Response]:
        try:
            request = self._client.build_request(
                method, address, headers=dict(headers), content=content or None
            )
            response = self._client.send(request, stream=True)
        except (http.HTTPError, http.InvalidURL, ssl.SSLError) as error:
            raise Unavailable(f"{self.server} does not answer: {_describe(error)}.") from error
        try:
            if response.status_code == 401:
                raise ConfigError(
                    f"{self.server} does not accept the user {printable(self._user)!r} "
                    "with that password.",
                    remedy="Check `user` and `password_file` (Nextcloud: an app password).",
                )
            yield response
        finally:
            response.close()

    def _raise_if_busy(self, status: int) -> None:
        if status in _BUSY or status >= 500:
            raise Unavailable(f"{self.server} {_BUSY.get(status, 'has an error')} (HTTP {status}).")


def _is_visible_in(path: str, target: Path) -> bool:
    """Return whether a file of the server appears at its path below the target, or in a folder above."""
    parts = path.split("/")
    below = [target.joinpath(*parts[start:]) for start in range(len(parts))]
    above = [parent / parts[-1] for parent in target.parents]
    return any(map(os.path.lexists, [*below, *above]))


def _if_match(version: str) -> dict[str, str]:
    return {"If-Match": f'"{version}"'} if version else {}


def _describe(error: BaseException) -> str:
    return printable(reason_of(error)) or type(error).__name__


def _tls_context(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(f"Cannot read the certificates in {printable(ca_file)}.") from error


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


def plain_etag(value: str | None) -> str:
    """Return an ETag without quotes, weak mark and the suffix of a compressing proxy, or "".

    Servers differ: the property may be unquoted while the header is quoted, Apache's mod_deflate adds
    `-gzip`, and nginx marks compressed answers as weak. An ETag that no header can contain counts as none.
    """
    text = (value or "").strip().removeprefix("W/").strip('"')
    for suffix in ("-gzip", ";gzip", "-br", "--gzip"):
        text = text.removesuffix(suffix)
    plain = text.isascii() and text.isprintable() and '"' not in text
    return text if plain else ""


def path_parts(address: str) -> tuple[str, ...] | None:
    """Return the decoded parts of an address's path, or None if one of them is no file name.

    Parts are split before they are decoded, so that `%2F` does not split a part.
    """
    parts = tuple(unquote(part, errors="surrogateescape") for part in address.split("/") if part)
    unsafe = any(part in {".", ".."} or "/" in part or "\0" in part for part in parts)
    return None if unsafe else parts


def parse_listing(content: bytes, root: tuple[str, ...], folder: tuple[str, ...]) -> RemoteFolder:
    """Return the listing of `folder` (parts below `root`). Raises Unavailable if it is no WebDAV listing."""
    folders: list[str] = []
    files: dict[str, RemoteFile] = {}
    refused: list[str] = []
    for address, parts, properties in iterate_resources(content, root):
        if parts == folder:
            continue
        if parts is None or parts[:-1] != folder:
            refused.append(address)
        elif _is_folder(properties):
            folders.append("/".join(parts))
        elif (file := _file(properties, parts)) is not None:
            files[file.path] = file
    return RemoteFolder(tuple(dict.fromkeys(folders)), tuple(files.values()), tuple(refused))


Listed = tuple[str, tuple[str, ...] | None, "dict[str, Element]"]
"""An address, the parts of its path below the root (None: it is outside), and its properties."""


def iterate_resources(content: bytes, root: tuple[str, ...]) -> Iterator[Listed]:
    for response in _parse(content).iter(f"{DAV}response"):
        address = (response.findtext(f"{DAV}href") or "").strip()
        parts = _href_parts(address)
        if parts is None or parts[: len(root)] != root:
            yield address, None, {}
            continue
        yield address, parts[len(root) :], _properties(response)


def _href_parts(address: str) -> tuple[str, ...] | None:
    try:
        return path_parts(urlsplit(address).path)
    except ValueError:  # for instance an unclosed bracket in the host
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


def _properties(response: Element) -> dict[str, Element]:
    properties: dict[str, Element] = {}
    for propstat in response.findall(f"{DAV}propstat"):
        status = _STATUS.match((propstat.findtext(f"{DAV}status") or "").strip())
        if status is not None and status[1] == "200":
            for prop in propstat.iterfind(f"{DAV}prop/*"):
                properties[prop.tag] = prop
    return properties


def _is_folder(properties: dict[str, Element]) -> bool:
    kind = properties.get(f"{DAV}resourcetype")
    return kind is not None and kind.find(f"{DAV}collection") is not None


def _file(properties: dict[str, Element], parts: tuple[str, ...]) -> RemoteFile | None:
    """Return the file, or None if it has no length: its fetch could not be checked."""
    length = _text(properties, f"{DAV}getcontentlength")
    if not (length.isascii() and length.isdigit() and len(length) < 19) or not parts:
        return None
    version = _text(properties, f"{DAV}getetag")
    return RemoteFile(
        path="/".join(parts),
        size=int(length),
        # A weak ETag may stay the same while the bytes change.
        etag="" if version.startswith("W/") else plain_etag(version),
        modified=_time(_text(properties, f"{DAV}getlastmodified")),
        checksums=_checksums(properties.get(f"{OC}checksums")),
    )


def _text(properties: dict[str, Element], tag: str) -> str:
    prop = properties.get(tag)
    return "" if prop is None else (prop.text or "").strip()


def _time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _checksums(prop: Element | None) -> tuple[tuple[str, str], ...]:
    """Parse the checksums that the uploader stated: `<oc:checksum>SHA1:… MD5:…</oc:checksum>`."""
    words = "" if prop is None else " ".join(prop.itertext())
    pairs = (word.partition(":") for word in words.split())
    return tuple(
        (name.lower(), value.lower()) for name, _, value in pairs if name.lower() in CHECKSUMS
    )
