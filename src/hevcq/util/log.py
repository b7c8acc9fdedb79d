"""Configure structlog once; other modules only get a logger and bind names to it.

Each log event has a stable snake_case name; job, profile, attempt and source are bound to it once.
Logs go to stderr, as readable lines or as JSON; stdout is reserved for data.
The first logger imports structlog: the import takes 0.1 s, and most commands log nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TextIO

from hevcq.util.text import printable

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

_postponed: list[Callable[[], None]] = []
"""The configuration to apply once structlog is imported; empty afterwards."""


def configure(
    level: str = "warning",
    style: str = "console",
    stream: TextIO | None = None,
    shown: Callable[[EventDict], bool] | None = None,
) -> None:
    """Configure logging for this process.

    `level` is "debug", "info", "warning" or "error"; `style` is "console" or "json"; `stream` defaults
    to stderr. The console style leaves out each line for which `shown` returns True: a display shows
    its event as well.
    """
    out = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    _postponed[:] = [partial(_set_up, number, style, out, shown)]
    if "structlog" in sys.modules:  # a module may already have a logger
        _apply_postponed()


def get_logger(**names: object) -> FilteringBoundLogger:
    import structlog

    _apply_postponed()
    logger: FilteringBoundLogger = structlog.get_logger(**names)
    return logger


def _apply_postponed() -> None:
    for set_up in _postponed:
        set_up()
    _postponed.clear()  # last, so that no thread logs before; configuring twice is harmless


def _set_up(level: int, style: str, out: TextIO, shown: Callable[[EventDict], bool] | None) -> None:
    import structlog

    def drop_shown(_logger: object, _method: str, line: EventDict) -> EventDict:
        if shown is not None and shown(line):
            raise structlog.DropEvent
        return line

    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if style == "json"
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([] if style == "json" else [drop_shown, _escape_for_terminal]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def _escape_for_terminal(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Escape characters that would break a line or control a terminal, as an untrusted file name may.

    The JSON renderer escapes text itself, and structlog escapes all values that are not text.
    """
    for name, value in line.items():
        if isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            line[name] = "\n".join(map(printable, lines))
    return line


def bind(**names: object) -> AbstractContextManager[None]:
    """Return a context manager that adds `names` to every line of this thread.

    A new thread starts without names; to inherit them, run it in a copy of its parent's context.
    """
    import structlog

    return structlog.contextvars.bound_contextvars(**names)
