"""A real WebDAV server (wsgidav on cheroot) in this process, with the faults of real ones."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cheroot.wsgi import Server
from wsgidav.fs_dav_provider import FileResource, FilesystemProvider, FolderResource
from wsgidav.util import init_logging
from wsgidav.wsgidav_app import WsgiDAVApp

USER, PASSWORD = "anna", "gate-open-19"
OC = "{http://owncloud.org/ns}"
Respond = Callable[[str, list], object]
Fault = Callable[[dict, "Respond", Callable], "Iterator[bytes] | None"]


class _File(FileResource):
    """A file whose ETag changes with every write, as those of Nextcloud."""

    def get_etag(self):
        facts = Path(self._file_path).stat()
        return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"

    def get_property_value(self, name):
        if name == f"{OC}checksums":
            stated = self.provider.checksums.get(self.path)
            if stated is not None:
                from wsgidav import xml_tools

                element = xml_tools.make_sub_element(xml_tools.etree.Element("x"), name)
                xml_tools.make_sub_element(element, f"{OC}checksum").text = stated
                return element
        return super().get_property_value(name)


class _Provider(FilesystemProvider):
    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.checksums: dict[str, str] = {}

    def get_resource_inst(self, path, environ):
        found = super().get_resource_inst(path, environ)
        if isinstance(found, FileResource):
            return _File(path, environ, found._file_path)
        if isinstance(found, FolderResource):
            found.__class__ = _Folder
        return found


class _Folder(FolderResource):
    def get_member(self, name):
        found = super().get_member(name)
        if isinstance(found, FileResource):
            return _File(found.path, self.environ, found._file_path)
        if isinstance(found, FolderResource):
            found.__class__ = _Folder
        return found


@dataclass
class WebDav:
    """A running server. `faults` are asked before each request; `requests` are those it saw."""

    root: Path
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> Path:
        """Make or replace a file on the server, as a phone does."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        temp = file.with_name(f"{file.name}~new")
        temp.write_bytes(content)
        temp.replace(file)
        return file

    def reset(self) -> None:
        """Forget everything, for the next test on the same server."""
        shutil.rmtree(self.root)
        (self.root / "Camera").mkdir(parents=True)
        for kept in (self.faults, self.requests, self.headers, self.checksums):
            kept.clear()

    def files(self) -> dict[str, bytes]:
        """Return every file on the server."""
        found = (p for p in sorted(self.root.rglob("*")) if p.is_file())
        return {p.relative_to(self.root).as_posix(): p.read_bytes() for p in found}

    def methods(self) -> list[str]:
        return [method for method, _ in self.requests]


@contextmanager
def serving(root: Path, *, prefix: str = "") -> Iterator[WebDav]:
    """Serve `root` on 127.0.0.1 until the block ends."""
    init_logging({"logging": {"enable": False}, "verbose": 0})
    provider = _Provider(os.fspath(root))
    application = WsgiDAVApp(
        {
            "provider_mapping": {prefix or "/": provider},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {
                "accept_basic": True,
                "accept_digest": False,
                "default_to_digest": False,
            },
            "verbose": 0,
            "logging": {"enable": False},
            "property_manager": None,
            "lock_storage": True,
        }
    )
    server = WebDav(root, checksums=provider.checksums)

    def faulty(environ, start_response):
        method = environ["REQUEST_METHOD"]
        server.requests.append((method, environ["PATH_INFO"]))
        server.headers.append({k: v for k, v in environ.items() if k.startswith("HTTP_")})
        for fault in list(server.faults):
            answer = fault(environ, start_response, application)
            if answer is not None:
                return answer
        return application(environ, start_response)

    http = Server(("127.0.0.1", 0), faulty, numthreads=4, timeout=5, shutdown_timeout=1)
    http.error_log = lambda *_args, **_named: None
    http.prepare()
    thread = threading.Thread(target=http.serve, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.bind_addr[1]}{prefix}"
    try:
        yield server
    finally:
        http.stop()
        thread.join(10)


def times(count: int, fault: Fault) -> Fault:
    """Apply a fault to the first `count` requests that it applies to."""
    left = [count]

    def limited(environ, start_response, application):
        if left[0] <= 0:
            return None
        answer = fault(environ, start_response, application)
        if answer is not None:
            left[0] -= 1
        return answer

    return limited


def status(method: str, code: int, **headers: str) -> Fault:
    """Answer a method with a status."""

    def answer(environ, start_response, _application):
        if environ["REQUEST_METHOD"] != method:
            return None
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        start_response(f"{code} Fault", [("Content-Length", "0"), *given])
        return iter([])

    return answer


def refusing(code: int) -> Fault:
    """Answer every delete with a status, but for those by which the server is tried."""
    answer = status("DELETE", code)
    return lambda environ, start_response, application: (
        None if "probe" in environ["PATH_INFO"] else answer(environ, start_response, application)
    )


def cut(after: int) -> Fault:
    """Break the connection of a GET after some bytes of its body."""

    def answer(environ, start_response, application):
        if environ["REQUEST_METHOD"] != "GET":
            return None

        def broken():
            left = after
            for block in application(environ, start_response):
                yield block[:left]
                left -= len(block)
                if left <= 0:
                    raise ConnectionAbortedError("cut by the test")

        return broken()

    return answer


def changed_header(method: str, name: str, value: str | None) -> Fault:
    """Answer with a header changed, or without it."""

    def answer(environ, start_response, application):
        if environ["REQUEST_METHOD"] != method:
            return None

        def start(line, headers, *rest):
            kept = [(n, v) for n, v in headers if n.lower() != name.lower()]
            return start_response(line, kept if value is None else [*kept, (name, value)], *rest)

        return application(environ, start)

    return answer


def without(*names: str) -> Fault:
    """Ignore request headers, as servers do that never heard of them."""

    def answer(environ, start_response, application):
        if not any(environ.pop(f"HTTP_{n.upper().replace('-', '_')}", None) for n in names):
            return None
        return application(environ, start_response)

    return answer
