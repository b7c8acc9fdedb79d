"""Normal forms: two states that nothing can tell apart any more become one.

Each is a bisimulation: whatever may happen to the one may happen to the other, costs the same
trouble, breaks the same rules, and leads to states that have one normal form again. That is argued
here, and `test_reductions.py` compares both sides, move by move, for every scene of small scopes.

- **Past is past.** A claim that has run out by every clock is only that, however long ago: it is
  asked whether it lives and whether it is this tick that ends it, and a renewal counts from now.
- **Whole ticks.** A hidden message is asked whether it is hidden, and time passes in ticks: what
  is left is rounded up to whole ticks.
- **Fences by rank.** Fences are only compared, and a new one is greater than all there are. So of
  those that a video and its workers know only the order counts; 0 stays 0: none.
- **Ended is ended.** A job that has its end is never counted for again (`farm.judged` holds that),
  so its failures, crashes and doubts decide nothing. With neither message nor worker nothing can happen to
  it at all, and only how it ended is left.

What `scenes.Scenes` adds: which of two jobs is called the first makes no difference, for a worker
treats all jobs alike. The two workers cannot be exchanged: their clocks differ.
"""

import math

from chaos.protocol.farm import SETTLED, Scope, Worker
from chaos.protocol.videos import Message, Record, Video

Workers = tuple[Worker, Worker]


def normal(video: Video, workers: Workers, scope: Scope) -> tuple[Video, Workers]:
    """Return the normal form of a video and the workers on it."""
    first, second = workers
    busy = first.node >= 0 or second.node >= 0
    message = _hidden(video.message, scope.tick_s)
    if video.record.state in SETTLED:
        record = video.record
        if record.failures or record.crashes or record.suspected_worker_fault:
            record = record._replace(failures=0, crashes=0, suspected_worker_fault=False)
        if message is None and not busy:
            done = int(record.state == "done")
            record = record._replace(fence=1, made=done)
            video = video._replace(visible=done)
    else:
        record = _claimed(video.record, min(0.0, *scope.skews))
    if message is not video.message or record is not video.record:
        video = video._replace(message=message, record=record)
    return _ranked(video, workers)


def _hidden(message: Message | None, tick_s: float) -> Message | None:
    if message is None or message.hidden_s <= 0 or not message.hidden_s % tick_s:
        return message
    return message._replace(hidden_s=math.ceil(message.hidden_s / tick_s) * tick_s)


def _claimed(record: Record, past_s: float) -> Record:
    if record.state != "running" or record.lease_s >= past_s:
        return record
    return record._replace(lease_s=past_s)


def _ranked(video: Video, workers: Workers) -> tuple[Video, Workers]:
    record, (one, two) = video.record, workers
    known = {0, record.fence, record.made, video.visible, one.fence, two.fence, one.seen, two.seen}
    if max(known) == len(known) - 1:
        return video, workers
    rank = {fence: number for number, fence in enumerate(sorted(known))}
    record = record._replace(fence=rank[record.fence], made=rank[record.made])
    one = one._replace(fence=rank[one.fence], seen=rank[one.seen])
    two = two._replace(fence=rank[two.fence], seen=rank[two.seen])
    return video._replace(record=record, visible=rank[video.visible]), (one, two)
