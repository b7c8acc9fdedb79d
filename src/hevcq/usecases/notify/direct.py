"""Tell of an event at once and without the event log: for servers that share no data folder."""

from __future__ import annotations

from collections.abc import Sequence

from hevcq.ports.event_log import Happened
from hevcq.ports.receiver import NotDelivered, Receiver
from hevcq.usecases.notify.words import message_of
from hevcq.util.log import get_logger

MOST_REMEMBERED = 10_000


class DirectMessages:
    """Hand each event to every receiver that wants it; who accepted it gets it once from this process.

    Messages go out one by one, also where the settings gather those of a day.
    """

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = tuple(receivers)
        self._accepted: dict[tuple[str, str], None] = {}
        self._off: set[str] = set()

    def __call__(self, happened: Happened) -> bool:
        """Return whether every receiver took it, now or before, or wants nothing more."""
        message = message_of(happened)
        left = 0
        for receiver in self._receivers:
            key = (receiver.identity, message.message_id)
            wanted = receiver.wants(happened.name) and receiver.identity not in self._off
            if not wanted or key in self._accepted:
                continue
            log = get_logger(receiver=receiver.name)
            try:
                receiver.deliver([message])
            except NotDelivered as error:
                if error.gone:
                    log.warning("receiver_off", reason=str(error))
                    self._off.add(receiver.identity)
                    continue
                log.info("message_not_delivered", reason=str(error))
                left += 1
            except Exception:
                log.exception("receiver_broke")
                left += 1
            else:
                self._accepted[key] = None
                if len(self._accepted) > MOST_REMEMBERED:
                    del self._accepted[next(iter(self._accepted))]
        return not left
