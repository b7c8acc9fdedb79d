"""Build the receivers of events, and what sends to them beside the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hevcq.errors import ConfigError, HevcqError, Unavailable, UsageError
from hevcq.settings.notify import (
    MediaServerSettings,
    NotifySettings,
    WebhookSettings,
    first_line,
    signing_secret,
)
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, reason_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from hevcq.ports.event_log import Happened, Receiver
    from hevcq.settings.model import Settings
    from hevcq.sqlite.event_log import EventLog
    from hevcq.usecases.history.roll_up import LedgerGather, RollUp
    from hevcq.wiring.app import App
    from hevcq.worker.monitoring.watchers import PoolState

EVERY_S = 5.0
"""Seconds between looks for new events: one lookup in an index each."""
ORIGINALS_EVERY_S = 6 * 3600.0
PATIENCE_S = 15.0
"""Seconds that a stopping worker waits for the last messages."""
MAX_WAITING = 1000


def event_log(app: App) -> EventLog:
    """Return the event log of this machine, in the database of its catalog."""
    from hevcq.sqlite.catalog import Catalog
    from hevcq.sqlite.event_log import EventLog

    catalog = app.catalog
    assert isinstance(catalog, Catalog)
    return EventLog(catalog.database, app.clock)


def roll_up(app: App, log: EventLog) -> RollUp:
    """Return what sums the events up by day."""
    from hevcq.settings.libraries import library_of
    from hevcq.usecases.history.roll_up import RollUp

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
    from hevcq.usecases.history.roll_up import LedgerGather

    if app.settings.backend == "embedded":
        return None
    return LedgerGather(log, app.backend.ledger, app.clock)


class EventWatcher:
    """Sum up events and send their messages, in a thread of its own; a watcher of a pool."""

    def __init__(self, app: App) -> None:
        from hevcq.usecases.notify.sender import Sender
        from hevcq.usecases.notify.summaries import BatchWatch
        from hevcq.worker.monitoring.watchers import Background

        settings, self._app, self._log = app.settings, app, event_log(app)
        self._roll_up = roll_up(app, self._log)
        self._batch = BatchWatch(self._log, app.worker_backend.ledger, app.clock)
        found = receivers(settings, app.clock)
        self._gather = _gather(app, self._log)
        if self._gather is not None:  # before the receivers begin: they get nothing of the past
            self._gather.step()
        zone = settings.schedule.hours().schedule.zone
        self._sender = Sender(self._log, found, app.clock, zone) if found else None
        self._next_originals = 0.0
        self._background = Background("hevcq-messages", self._once, app.clock)
        self._started = False

    def notify(self, name: str, reason: str, *, unless_within_s: float = 6 * 3600.0) -> None:
        """Add an event about this machine; never raises a HevcqError."""
        import socket

        from hevcq.ports.event_log import Happened

        happened = Happened(name, self._app.clock.now(), source=socket.gethostname(), reason=reason)
        try:
            self._log.add(happened, unless_within_s=unless_within_s)
        except HevcqError as error:
            get_logger().info("event_not_kept", reason=str(error))

    def step(self) -> None:
        """Do everything that is due. Raises StorageError or Unavailable."""
        if self._gather is None:
            self._batch.step()
        else:
            self._gather.step()
        if self._sender is not None:
            self._originals()
            self._sender.step()
        self._roll_up.step()  # last: it forgets what is old

    def _once(self) -> float:
        try:
            self.step()
        except HevcqError as error:
            get_logger().info("messages_wait", reason=str(error))
        return EVERY_S

    def _originals(self) -> None:
        now = self._app.clock.now()
        if now < self._next_originals:
            return
        self._next_originals = now + ORIGINALS_EVERY_S
        from hevcq.usecases.notify.summaries import expiring

        sentence = expiring(self._app.library_ports)
        if sentence:
            self.notify("originals.expiring", sentence, unless_within_s=20 * 3600.0)

    def observe(self, _state: PoolState) -> None:
        """Start the thread on the first call."""
        if not self._started:
            self._started = True
            self._background.wake()

    def close(self) -> None:
        """Send what there is once more, and end."""
        if self._started:
            self._background.close(PATIENCE_S)


def event_watcher(app: App) -> EventWatcher | None:
    """Return what sends the events of a pool; None for a fleet's worker, which notifies nobody and keeps no log."""
    settings = app.settings
    receives = settings.notify or settings.webhook or settings.media_server
    return EventWatcher(app) if settings.backend == "embedded" or receives else None


def video_messages(app: App) -> Callable[[Happened], bool] | None:
    """Return what reports the ends of videos where their records are shared by several servers.

    None if the event log does (a data folder), or nobody wants to know. Raises ConfigError.
    """
    from hevcq.usecases.notify.sender import DirectSender

    if app.settings.backend == "embedded":
        return None
    ends = ("video.ready", "video.failed")
    found = [each for each in receivers(app.settings, app.clock) if any(map(each.wants, ends))]
    return DirectSender(found) if found else None


def notify_now(app: App) -> None:
    """Send at the end of a command what happened in it; never raises a HevcqError."""
    try:
        EventWatcher(app).step()
    except HevcqError as error:
        get_logger().warning("messages_wait", reason=str(error))


def receivers(settings: Settings, clock: Clock) -> list[Receiver]:
    """Return all receivers.

    Raises ConfigError if a secret cannot be read, an address is none, or a package is missing.
    """
    return [
        *(_people(one) for one in settings.notify),
        *(_webhook(one, clock) for one in settings.webhook),
        *(_media_server(one) for one in settings.media_server),
    ]


def _people(settings: NotifySettings) -> Receiver:
    from hevcq.remotes.notify.webhook import People

    url = _secret(settings.url, settings.url_file, "[[notify]] url_file")
    return People(settings.name, url, frozenset(settings.events), settings.daily_at)


def _webhook(settings: WebhookSettings, clock: Clock) -> Receiver:
    from hevcq.remotes.notify.webhook import Webhook

    given = "[[webhook]] secret_file"
    secret = _secret(settings.secret, settings.secret_file, given, signing_secret)
    name = settings.name or settings.url.split("://")[1].split("/")[0]
    return Webhook(name, settings.url, secret, frozenset(settings.events), clock)


def _media_server(settings: MediaServerSettings) -> Receiver:
    from hevcq.remotes.notify.media_servers import KINDS

    key = _secret(settings.key, settings.key_file, "[[media_server]] key_file")
    pairs = [pair.partition("=")[::2] for pair in settings.paths]
    return KINDS[settings.kind](settings.url, key, pairs)


def _secret(
    given: SecretStr, file: Path | None, name: str, read: Callable[[str], str] = str
) -> str:
    """Return a secret of the settings or of a file. Raises ConfigError."""
    try:
        return read(given.get_secret_value() if file is None else first_line(file))
    except (OSError, ValueError) as error:
        shown = printable(str(file)) if file is not None else "the settings"
        raise ConfigError(f"{name}: {shown} {reason_of(error)}.") from error


def states(app: App) -> list[dict[str, Any]]:
    """Return for each receiver its name, events, number of waiting events, and last problem."""
    states: list[dict[str, Any]] = []
    for receiver in receivers(app.settings, app.clock):
        log = event_log(app)
        reader = log.reader(receiver.identity)
        events = log.after(reader.seq, MAX_WAITING)
        states.append(
            {
                "name": receiver.name,
                "events": sorted(receiver.events),
                "waiting": sum(receiver.wants(event.name) for event in events),
                "problem": reader.problem,
            }
        )
    return states


def try_receivers(app: App, names: Sequence[str]) -> list[tuple[str, str]]:
    """Send a test to the named receivers (none: all); return each name and what went wrong, or "".

    Raises UsageError for an unknown name.
    """
    from hevcq.ports.event_log import Happened, NotDelivered
    from hevcq.usecases.notify.sender import message_of

    log, found = event_log(app), receivers(app.settings, app.clock)
    if unknown := set(names) - {receiver.name for receiver in found}:
        known = ", ".join(receiver.name for receiver in found) or "none"
        raise UsageError(f"No receiver is named {min(unknown)}; there are: {known}.")
    message = message_of(Happened("test", app.clock.now(), reason="This is a test of hevcq."))
    results = []
    for receiver in found:
        if names and receiver.name not in names:
            continue
        try:
            receiver.test(message)
        except NotDelivered as error:
            results.append((receiver.name, str(error)))
            continue
        log.end(replace(log.reader(receiver.identity), problem="", tries=0, next_at=0.0))
        results.append((receiver.name, ""))
    return results


def check_receivers(app: App) -> str:
    """Return who is notified; sends nothing. Raises HevcqError if a receiver took nothing lately."""
    found = states(app)
    if troubles := [f"{state['name']}: {state['problem']}" for state in found if state["problem"]]:
        raise Unavailable(
            "; ".join(troubles), remedy="Mend it, then run `hevcq config notify test`."
        )
    names = ", ".join(state["name"] for state in found)
    return f"to {names}; `hevcq config notify test` tries them" if names else ""
