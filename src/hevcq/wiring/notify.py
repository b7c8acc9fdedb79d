"""Build the receivers of events, and what sends to them beside the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hevcq.errors import ConfigError, HevcqError
from hevcq.settings.web import (
    MediaServerSettings,
    NotifySettings,
    WebhookSettings,
    path_of,
    revealed,
    signing_secret,
)
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, reason_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from hevcq.ports.event_log import Happened, Receiver
    from hevcq.sql.event_log import EventLog
    from hevcq.usecases.history.report import LedgerGather, RollUp
    from hevcq.usecases.notify.sender import EventWatch
    from hevcq.wiring.app import App


def event_log(app: App) -> EventLog:
    from hevcq.sql.catalog import Catalog
    from hevcq.sql.event_log import EventLog

    catalog = app.catalog
    assert isinstance(catalog, Catalog)
    return EventLog(catalog.database, app.clock)


def roll_up(app: App, log: EventLog) -> RollUp:
    from hevcq.settings.libraries import library_of
    from hevcq.usecases.history.report import RollUp

    def root(path: Path) -> Path | None:
        found = library_of(app.settings.libraries, path)
        return None if found is None else found.path

    return RollUp(log, app.catalog, root)


def gathered(app: App) -> EventLog:
    """Return the event log with everything summed up that is known now. Raises StorageError, Unavailable."""
    log = event_log(app)
    gather = _gather(app, log)
    if gather is not None:
        gather.step()
    roll_up(app, log).step()
    return log


def _gather(app: App, log: EventLog) -> LedgerGather | None:
    """Return what reads the ends of jobs from a fleet's ledger; None where jobs write their events."""
    from hevcq.usecases.history.report import LedgerGather

    if not app.settings.on_aws:
        return None
    return LedgerGather(log, app.backend.ledger, app.clock)


def event_watch(app: App) -> EventWatch:
    from hevcq.usecases.notify.sender import BatchWatch, EventWatch, Sender
    from hevcq.usecases.placement.originals import expiring

    log, found = event_log(app), receivers(app)
    gather = _gather(app, log)
    if gather is not None:  # before the receivers begin: they get nothing of the past
        gather.step()
    ends = gather or BatchWatch(log, app.worker_backend.ledger, app.clock)
    summed = roll_up(app, log).step  # last: it forgets what is old
    if not found:
        return EventWatch(log, app.clock, [ends.step, summed])
    sender = Sender(log, found, app.clock, app.settings.schedule.hours().schedule.zone)
    tasks = [ends.step, sender.step, summed]
    return EventWatch(log, app.clock, tasks, partial(expiring, app.library_ports))


def watched_events(app: App) -> EventWatch | None:
    """Return what sends the events of a pool; None for a fleet's worker, which notifies nobody and keeps no log."""
    settings = app.settings
    receives = settings.notify or settings.webhook or settings.media_server
    return event_watch(app) if not settings.on_aws or receives else None


def video_messages(app: App) -> Callable[[Happened], bool] | None:
    """Return what reports the ends of videos where their records are shared by several servers.

    None if the event log does (a data folder), or nobody wants to know. Raises ConfigError.
    """
    from hevcq.usecases.notify.sender import DirectSender

    if not app.settings.on_aws:
        return None
    ends = ("video.ready", "video.failed")
    found = [each for each in receivers(app) if any(map(each.wants, ends))]
    return DirectSender(found) if found else None


def notify_now(app: App) -> None:
    """Send at the end of a command what happened in it; never raises a HevcqError."""
    try:
        event_watch(app).step()
    except HevcqError as error:
        get_logger().warning("messages_wait", reason=str(error))


def receivers(app: App) -> list[Receiver]:
    """Return all receivers.

    Raises ConfigError if a secret cannot be read, an address is none, or a package is missing.
    """
    settings = app.settings
    return [
        *(people(one) for one in settings.notify),
        *(_webhook(one, app.clock) for one in settings.webhook),
        *(_media_server(one) for one in settings.media_server),
    ]


def try_receiver(app: App, number: int) -> tuple[str, str]:
    """Send a test to one of all receivers, by its number; return its name, and why it failed or ""."""
    from hevcq.usecases.notify.sender import try_receivers

    one = receivers(app)[number]
    ((name, problem),) = try_receivers(event_log(app), [one], (), app.clock.now())
    return name, problem


def people(settings: NotifySettings) -> Receiver:
    """Return who is notified by an address of apprise. Raises ConfigError if apprise does not know it."""
    from hevcq.remotes.notify import People

    url = _secret(settings.url, "[[notify]] url")
    return People(settings.name, url, frozenset(settings.events), settings.daily_at)


def _webhook(settings: WebhookSettings, clock: Clock) -> Receiver:
    from hevcq.remotes.notify import Webhook

    secret = _secret(settings.secret, "[[webhook]] secret", signing_secret)
    name = settings.name or settings.url.split("://")[1].split("/")[0]
    return Webhook(name, settings.url, secret, frozenset(settings.events), clock)


def _media_server(settings: MediaServerSettings) -> Receiver:
    from hevcq.remotes.notify import KINDS

    key = _secret(settings.key, "[[media_server]] key")
    pairs = [pair.partition("=")[::2] for pair in settings.paths]
    return KINDS[settings.kind](settings.url, key, pairs)


def _secret(secret: SecretStr, name: str, read: Callable[[str], str] = str) -> str:
    """Return a secret, of the settings or of the file that they name. Raises ConfigError."""
    try:
        return read(revealed(secret))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}: {printable(path_of(secret) or 'it')} {reason_of(error)}."
        ) from error
