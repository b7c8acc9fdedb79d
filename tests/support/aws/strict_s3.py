"""S3 as a browser meets it, in front of moto, which lets every site in.

Cross-origin requests are answered by the bucket's own rules, and addresses are held to their
signature with the headers it names.
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html)
"""

import hashlib
import hmac
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl, quote

from werkzeug.serving import make_server

from support.aws.emulator import KEYS

SECRET = KEYS["AWS_SECRET_ACCESS_KEY"]
SIGNATURE = "X-Amz-Signature"
Environ = dict[str, Any]


class StrictS3:
    """A WSGI application around moto's; `refused` are the reasons of what was not let in."""

    def __init__(self, moto: Callable[..., Iterable[bytes]], s3: Any) -> None:
        self._moto, self._s3 = moto, s3
        self.refused: list[str] = []
        self.served: list[tuple[str, str]] = []

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        origin, method = environ.get("HTTP_ORIGIN", ""), environ["REQUEST_METHOD"]
        bucket, _, _key = environ["PATH_INFO"].strip("/").partition("/")
        if not origin:
            return self._moto(environ, start)
        asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", method)
        cors = self._cors(bucket, origin, asked, environ)
        if method == "OPTIONS":
            if cors is None:
                return self._refuse(start, "403 Forbidden", f"CORS: {asked} from {origin}", {})
            start("200 OK", [*cors.items(), ("Content-Length", "0")])
            return []
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if why := _why_not(environ, len(body)):
            return self._refuse(start, "403 Forbidden", why, cors or {})
        environ["wsgi.input"] = io.BytesIO(body)
        self.served.append((method, environ["PATH_INFO"]))

        def answered(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [h for h in headers if not h[0].lower().startswith("access-control-")]
            return start(status, [*kept, *(cors or {}).items()], *more)

        return self._moto(environ, answered)

    def _cors(
        self, bucket: str, origin: str, method: str, environ: Environ
    ) -> dict[str, str] | None:
        """Return the headers of the first rule that matches, or None."""
        try:
            rules = self._s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
        except self._s3.exceptions.ClientError:
            return None
        named = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").lower().split(",")
        wanted = [each.strip() for each in named if each.strip()]
        for rule in rules:
            allowed = [each.lower() for each in rule.get("AllowedHeaders", [])]
            if (
                any(fnmatchcase(origin, each) for each in rule["AllowedOrigins"])
                and method in rule["AllowedMethods"]
                and all(any(fnmatchcase(each, one) for one in allowed) for each in wanted)
            ):
                return {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": ", ".join(rule["AllowedMethods"]),
                    "Access-Control-Allow-Headers": ", ".join(wanted),
                    "Access-Control-Expose-Headers": ", ".join(rule.get("ExposeHeaders", [])),
                    "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
                }
        return None

    def _refuse(
        self, start: Callable[..., Any], status: str, why: str, headers: Mapping[str, str]
    ) -> Iterable[bytes]:
        self.refused.append(why)
        said = f"<Error><Code>AccessDenied</Code><Message>{why}</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), *headers.items()])
        return [said]


def _why_not(environ: Environ, length: int) -> str:
    """Return why S3 would not take a request of a browser, or ""."""
    given = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    if SIGNATURE not in given:
        return "nothing is signed"
    begun = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > begun + timedelta(seconds=int(given["X-Amz-Expires"])):
        return "expired"
    if not hmac.compare_digest(_signature(environ, given, length), given[SIGNATURE]):
        return f"{environ['REQUEST_METHOD']}: the signature is wrong"
    return ""


def _signature(environ: Environ, given: Mapping[str, str], length: int) -> str:
    names = given["X-Amz-SignedHeaders"].split(";")
    headers = {"host": environ["HTTP_HOST"], "content-length": str(length)}
    headers |= {n: environ.get(f"HTTP_{n.upper().replace('-', '_')}", "") for n in names} | headers
    query = "&".join(
        f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in sorted(given.items())
        if name != SIGNATURE
    )
    path = quote(environ["PATH_INFO"].encode("latin-1").decode(), safe="/~")
    listed = "".join(f"{name}:{headers[name]}\n" for name in names)
    request = [environ["REQUEST_METHOD"], path, query, listed, ";".join(names), "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    _key, *scope = given["X-Amz-Credential"].split("/")
    said = "\n".join(["AWS4-HMAC-SHA256", given["X-Amz-Date"], "/".join(scope), digest])
    key = f"AWS4{SECRET}".encode()
    for part in (*scope, said):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


@contextmanager
def strict_s3(s3: Any) -> Iterator[tuple[StrictS3, str]]:
    """Serve this process's moto strictly on a port of its own; yield it and its address."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    strict = StrictS3(DomainDispatcherApplication(create_backend_app), s3)
    server = make_server("127.0.0.1", 0, strict, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield strict, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
