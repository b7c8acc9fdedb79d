"""Ask the local proxy of a source as ffmpeg does: through it, with its password."""

import base64
from http.client import HTTPResponse
from typing import cast
from urllib.request import Request, urlopen

from hevcq.ports.store import PROXY_SCHEME, PROXY_USER


def open_relay(location: str, span: str = "") -> HTTPResponse:
    """Open a location of the local proxy; `span` is a range of bytes, `first-last`."""
    place, _, password = location.removeprefix(PROXY_SCHEME).partition("?")
    asked = Request(f"http://{place}")
    asked.set_proxy(place.partition("/")[0], "http")
    known = base64.b64encode(f"{PROXY_USER}:{password}".encode()).decode()
    asked.add_header("Proxy-Authorization", f"Basic {known}")
    if span:
        asked.add_header("Range", f"bytes={span}")
    return cast(HTTPResponse, urlopen(asked, timeout=30))
