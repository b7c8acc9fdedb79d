"""The API does what its description says, whatever it is sent (schemathesis, in a short form)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks as known

from hevcq.settings.model import Settings
from hevcq.settings.web import WebSettings
from hevcq.web.api.openapi import document
from hevcq.web.app import create_app
from hevcq.wiring.app import App
from support.clips import ManualClock

HEADERS = {"Host": "127.0.0.1:8790", "Sec-Fetch-Site": "same-origin"}
CHECKS = (
    schemathesis.checks.not_a_server_error,
    known.status_code_conformance,
    known.content_type_conformance,
    known.response_schema_conformance,
)
EXAMPLES = 3


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("api")
    web = WebSettings(auth="none")
    app = App(Settings(data_dir=folder, min_free_mib=0, web=web), ManualClock(auto=True))
    load_all_checks()
    yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", create_app(app), headers=HEADERS)
    app.close()


EVERY = [(method, path) for path, those in document()["paths"].items() for method in those]


def fuzz(api: Any, method: str, path: str) -> None:
    """Send generated requests to one operation."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path][method.upper()].as_strategy())
    def each(case: Any) -> None:
        case.call_and_validate(headers=HEADERS, checks=CHECKS)

    each()


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_it_keeps_its_word(api, method, path):
    fuzz(api, method, path)
