"""Bugs in the worker: its lease, its order of steps, its counting."""

from __future__ import annotations

from .plant import Bug

WORKER = "src/hevcq/worker"
LEASE, HEARTBEAT = ("tests/worker/test_lease.py",), ("tests/worker/test_heartbeat.py",)
CRASH = ("tests/worker/test_crash_points.py",)
ODDS = ("tests/worker/test_handler.py", "tests/worker/test_handler_odds.py")
FAILURES = ("tests/worker/test_handler_failures.py",)
SICK = ("tests/worker/test_sick_worker.py",)
PURE = ("tests/chaos/test_planted_survivors.py",)
RACES = ("tests/worker/test_races.py",)

PUT = """    with around(kit.faults, "put-certificate"):
        kit.retry_control_call(
            lambda: kit.backend.store.put(
                name, certificate.to_json().encode(), metadata={"job": claimed.task.job_id}
            )
        )
"""
PUBLISH = """    publication = Publication(
        key=made.key,
        file=made.file,
        sha256=sha256,
        job_id=claimed.task.job_id,
        fence=claimed.fence.number,
        metadata=_metadata(claimed, sha256, name),
        stop=claimed.lease.stop,
        recheck=lambda there: _recheck(kit, claimed, made, there),
    )
    # Nothing may come between this and the publication; the fence holds off what comes during it.
    claimed.lease.check()
    try:
        seen = _publish(kit, publication)
    except StaleFence as refused:
        _require_granted(kit, publication, refused)
        raise
"""
PUT_FIRST, PUT_LAST = PUT + PUBLISH, PUBLISH + PUT

BUGS = (
    Bug(
        "another film's rendition of the same name is replaced",
        f"{WORKER}/adopt.py",
        "    if task.source.bucket == LIBRARY_BUCKET or seen",
        "    if task.source.bucket or seen",
        ("tests/worker/test_same_names.py",),
    ),
    Bug(
        "a doubt is not remembered",
        f"{WORKER}/settle.py",
        "moves.interrupt(decided.reason, doubted=decided.doubted)",
        "moves.interrupt(decided.reason)",
        ("tests/worker/test_sick_worker.py",),
    ),
    Bug(
        "acknowledged before the work",
        f"{WORKER}/handler.py",
        "        heartbeat.start()\n        try:\n            verdicts =",
        "        heartbeat.start()\n        queue.ack(delivery)\n        try:\n            verdicts =",
        CRASH,
    ),
    Bug(
        "heartbeat not joined before settling",
        f"{WORKER}/handler.py",
        "            heartbeat.join()\n            with self._guard:\n",
        "            with self._guard:\n",
        ODDS,
    ),
    Bug(
        "settled although the lease is lost",
        f"{WORKER}/handler.py",
        "        if lease.lost:\n            decided = Abandon",
        "        if False:\n            decided = Abandon",
        PURE,
    ),
    Bug(
        "a dead job's message acknowledged instead of buried",
        f"{WORKER}/handler.py",
        "    if record_.state is JobState.DEAD and record_.failure_class is not FailureClass.CANCELLED:",
        "    if False:",
        CRASH,
    ),
    Bug(
        "one crash more than allowed",
        f"{WORKER}/handler.py",
        "if granted.crashes >= claimed",
        "if granted.crashes > claimed",
        (*ODDS, *FAILURES),
    ),
    Bug(
        "a job that another worker holds is acknowledged",
        f"{WORKER}/handler.py",
        "return self._held(found.claim, delivery, profile)",
        "return Done()",
        (*ODDS, *RACES),
    ),
    Bug(
        "a moved dead letter does not reopen its job",
        f"{WORKER}/take.py",
        "        if dead and (delivery.returned or _given_up(ended)):",
        "        if dead and _given_up(ended):",
        ("tests/worker/test_returned.py",),
    ),
    Bug(
        "a sick worker goes on",
        f"{WORKER}/fault_attribution.py",
        "SICK_AFTER = 5",
        "SICK_AFTER = 5_000_000",
        ("tests/worker/test_small_parts.py", *SICK, "tests/worker/test_pool.py"),
    ),
    Bug(
        "the first failure is counted although it may be the worker's",
        f"{WORKER}/fault_attribution.py",
        "return suspect(failure_class) and (first or others)",
        "return suspect(failure_class) and others",
        (*SICK, "tests/chaos/test_sim_sick.py"),
    ),
    Bug(
        "heartbeats one interval late",
        f"{WORKER}/lease.py",
        "        return self._soon(float(self._numbers.heartbeat_s))",
        "        return float(self._numbers.visibility_s)",
        (*LEASE, *HEARTBEAT),
    ),
    Bug(
        "lease counted from the last attempt, not the last success",
        f"{WORKER}/lease.py",
        "        self._queue_until = self._queue.extend(",
        "        self._queue_until = self._clock.monotonic() + visibility\n"
        "        self._queue_until = self._queue.extend(",
        (*LEASE, *HEARTBEAT),
    ),
    Bug(
        "lease counted from the reply, not the request",
        f"{WORKER}/lease.py",
        "            self._fence_until = sent + visibility",
        "            self._fence_until = self._clock.monotonic() + visibility",
        PURE,
    ),
    Bug(
        "the claim is not renewed",
        f"{WORKER}/lease.py",
        "        if self._fence is not None:\n            # The lease runs",
        "        if False:\n            # The lease runs",
        (*LEASE, *RACES),
    ),
    Bug(
        "a lost lease is not noticed without a heartbeat",
        f"{WORKER}/lease.py",
        "        if not self._lost and self._clock.monotonic() >= self.deadline:",
        "        if False:",
        LEASE,
    ),
    Bug(
        "a heartbeat thread that dies keeps the lease",
        f"{WORKER}/heartbeat.py",
        "            if not self._over.is_set():",
        "            if False:",
        HEARTBEAT,
    ),
    Bug(
        "nothing asks the lease right before publishing",
        f"{WORKER}/publish.py",
        "    claimed.lease.check()\n    try:\n        seen = _publish",
        "    try:\n        seen = _publish",
        (*RACES, *ODDS),
    ),
    Bug(
        "gates not asked at publication",
        f"{WORKER}/publish.py",
        "    require_passed(gates)\n",
        "",
        (*ODDS, *FAILURES),
    ),
    Bug(
        "source not checked again before publication",
        f"{WORKER}/publish.py",
        "        kit.retry_control_call(lambda: kit.backend.store.check(claimed.task.source))\n",
        "        pass\n",
        (*ODDS, *FAILURES, *RACES),
    ),
    Bug(
        "certificate after the rendition",
        f"{WORKER}/publish.py",
        PUT_FIRST,
        PUT_LAST,
        (*CRASH, *ODDS),
    ),
    Bug(
        "complete before published",
        f"{WORKER}/attempt.py",
        "            rendition = publish(self._kit, self._claimed, decided, self._report)\n",
        "            self._moves.complete(RenditionRef(key=decided.key, size=1, sha256='0' * 64,"
        " certificate_key='x'), cpu_s=0)\n"
        "            rendition = publish(self._kit, self._claimed, decided, self._report)\n",
        CRASH,
    ),
    Bug(
        "skip not remembered",
        f"{WORKER}/attempt.py",
        "                lambda: self._skips.remember(sha256, profile.name, profile.revision, reason)\n",
        "                lambda: None\n",
        PURE,
    ),
    Bug(
        "the film's length taken from its header",
        f"{WORKER}/attempt.py",
        "    return max(ends, default=info.duration_s)",
        "    return info.duration_s",
        PURE,
    ),
    Bug(
        "no look at the disk before work",
        f"{WORKER}/room.py",
        "    if free < needed:",
        "    if False:",
        (*ODDS, *FAILURES),
    ),
    Bug(
        "another's rendition adopted unread",
        f"{WORKER}/adopt.py",
        "    if not _same_bytes(certificate, seen, sha256, size):",
        "    if False:",
        ("tests/worker/test_adopt.py",),
    ),
    Bug(
        "a release counted as a failure",
        f"{WORKER}/settle.py",
        "        case Release():\n            moves.interrupt(decided.reason, doubted=decided.doubted)",
        "        case Release():\n            from hevcq.domain.verdict import FailureClass\n"
        "            moves.fail(decided.reason, FailureClass.INTERNAL)",
        (*FAILURES, "tests/worker/test_settle.py"),
    ),
    Bug(
        "buried in the queue, not in the ledger",
        f"{WORKER}/settle.py",
        "            moves.bury(decided.reason, decided.failure_class)",
        "            pass",
        FAILURES,
    ),
    Bug(
        "scratch of a live process swept",
        f"{WORKER}/scratch.py",
        "            if not (_taken(lock) and _same_file(lock, path)):\n                return False",
        "            if not _same_file(lock, path):\n                return False",
        ("tests/worker/test_scratch.py",),
    ),
    Bug(
        "a second signal does not insist",
        f"{WORKER}/stop.py",
        "            self.insisted.set()",
        "            pass",
        ("tests/worker/test_small_parts.py", "tests/worker/test_pool.py"),
    ),
    Bug(
        "a job buried by a message that is no task",
        f"{WORKER}/handler.py",
        "isinstance(decided, Bury) and not isinstance(cause, BadMessage)",
        "isinstance(decided, Bury)",
        ("tests/worker/test_handler_odds.py",),
    ),
)
