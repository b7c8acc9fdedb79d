"""Set up structlog once; everything else only asks for a logger and binds names to it.

Each log event is a stable snake_case name with job, profile, attempt and source bound once.
Words go to stderr, as lines for people or as JSON for machines; data on stdout is never mixed in.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(level: str = "warning", style: str = "console", stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    `level` is one of LEVELS; `style` is "console" or "json"; `stream` defaults to stderr.
    """
    out = stream if stream is not None else sys.stderr
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
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def get_logger(**names: object) -> FilteringBoundLogger:
    """Return a logger with `names` on every line."""
    logger: FilteringBoundLogger = structlog.get_logger(**names)
    return logger


def bound(**names: object) -> AbstractContextManager[None]:
    """Return a context in which every line of this thread carries `names` as well.

    A thread begins with none; one that belongs to the work is run in a copy of its starter's
    context.
    """
    return structlog.contextvars.bound_contextvars(**names)
