"""Open what a health check works with."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hevcq.usecases.health.check import CheckRequest, HealthCheck
    from hevcq.wiring.app import App


def open_check(
    app: App,
    request: CheckRequest,
    stop: threading.Event,
    on_file: Callable[[int, int, Path], None],
) -> HealthCheck:
    """Return the check of this request, with its records in the database of the data folder.

    Raises StorageError if that cannot be opened.
    """
    from hevcq.backends.embedded.health_records import SqliteHealthRecords
    from hevcq.usecases.health.check import HealthCheck, HealthPorts

    app.encoder.version()  # no file is blamed for an ffmpeg that is not there
    ports = HealthPorts(app.encoder, SqliteHealthRecords(app.records), app.clock, stop)
    return HealthCheck(ports, request, on_file)
