"""The crash points that the campaigns look for: what a worker calls of its ports in each kind of work.

The names are those of `fakes.crashing`. What is rarer than these (a third reading of a source before an
older rendition is replaced, a join that is buried) is killed at where a campaign comes to it.
"""

OF_SETS = "store.put#2 store.publish#2 store.publish#3 store.delete"
"""What only the encode of a set comes to: its notes, its files, its master playlist."""
WAYS = {
    "": (
        "queue.receive queue.extend queue.ack queue.release queue.bury ledger.get ledger.renew "
        "ledger.forget_subjobs store.list store.delete scratch.sweep scratch.close"
    ),
    "encode": (
        "ledger.claim ledger.progress ledger.progress#2 ledger.progress#3 ledger.recall "
        "ledger.remember ledger.certify ledger.complete ledger.skip ledger.fail ledger.interrupt "
        "ledger.bury ledger.get ledger.split ledger.subjobs ledger.mark_enqueued ledger.forget_subjobs store.check "
        "store.check#2 store.fetch store.fetch.exit store.stat store.open store.open#2 store.put "
        "store.publish store.list encoder.probe encoder.preflight encoder.keyframes "
        f"{OF_SETS} "
        "encoder.encode encoder.verify encoder.self_test scratch.job scratch.job#2 scratch.job.exit queue.send "
        "queue.ack queue.release queue.bury"
    ),
    "chunk": (
        "ledger.claim_subjob ledger.progress ledger.progress#2 ledger.get ledger.get#2 "
        "ledger.complete ledger.fail ledger.interrupt ledger.bury ledger.bury#2 ledger.subjobs "
        "store.check store.check#2 store.open store.stream "
        "store.stream.exit store.publish store.list store.delete encoder.encode_chunk "
        "scratch.job scratch.job.exit queue.send queue.ack queue.release queue.bury"
    ),
    "join": (
        "ledger.claim_subjob ledger.progress ledger.progress#2 ledger.progress#3 ledger.get "
        "ledger.get#2 ledger.get#3 ledger.subjobs ledger.subjobs#2 ledger.reopen ledger.mark_enqueued "
        "ledger.remember ledger.certify ledger.complete ledger.skip ledger.fail ledger.interrupt "
        "ledger.abandon_split ledger.forget_subjobs store.check store.check#2 store.open "
        "store.stat store.collect store.collect#2 store.collect#3 store.fetch store.fetch.exit "
        "store.put store.publish store.list store.delete store.delete#2 store.delete#3 "
        "encoder.join encoder.verify encoder.self_test scratch.job scratch.job#2 scratch.job.exit queue.send "
        "queue.ack queue.release"
    ),
}
"""By kind of work; without one while a thread has no work in hand, or in a thread of its own: the
heartbeat, a receiver, the start and the end of a worker."""


def points(*kinds: str) -> tuple[str, ...]:
    """Return both points of every call in these kinds of work."""
    calls = [f"{kind}/{call}".lstrip("/") for kind in kinds for call in WAYS[kind].split()]
    return tuple(f"{call}:{side}" for call in calls for side in ("before", "after"))


def points_of_sets() -> tuple[str, ...]:
    """Return both points of every call on the way of a set, from its encode to its end."""
    rest = "encoder.encode encoder.verify ledger.certify store.put store.publish store.stat"
    calls = f"{OF_SETS} {rest} ledger.complete".split()
    return tuple(f"encode/{call}:{side}" for call in calls for side in ("before", "after"))
