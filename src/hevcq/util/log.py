"""Set up structlog once; everything else only asks for a logger and binds names to it.

Each log event is a stable snake_case name with job, profile, attempt and source bound once.
Words go to stderr, as lines for people or as JSON for machines; data on stdout is never mixed in.
structlog is imported by the first logger: it takes a tenth of a second, and most commands log nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_postponed: list[Callable[[], None]] = []
"""How to set up structlog once it is imported; empty when that is done."""


def configure(level: str = "warning", style: str = "console", stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    `level` is one of LEVELS; `style` is "console" or "json"; `stream` defaults to stderr.
    """
    _postponed[:] = [
        partial(_set_up, LEVELS[level], style, stream if stream is not None else sys.stderr)
    ]
    if "structlog" in sys.modules:  # a module may hold a logger already
        _catch_up()


def get_logger(**names: object) -> FilteringBoundLogger:
    """Return a logger with `names` on every line."""
    import structlog

    _catch_up()
    logger: FilteringBoundLogger = structlog.get_logger(**names)
    return logger


def _catch_up() -> None:
    for set_up in _postponed:
        set_up()
    _postponed.clear()  # afterwards, so that no thread logs before; to set up twice does no harm


def _set_up(level: int, style: str, out: TextIO) -> None:
    import structlog

    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def bound(**names: object) -> AbstractContextManager[None]:
    """Return a context in which every line of this thread carries `names` as well.

    A thread begins with none; one that belongs to the work is run in a copy of its starter's
    context.
    """
    import structlog

    return structlog.contextvars.bound_contextvars(**names)
