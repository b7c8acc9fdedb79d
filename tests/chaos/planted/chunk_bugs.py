"""Bugs in films that are shared out: the split, its chunks, and their join."""

from __future__ import annotations

from .plant import Bug

WORKER = "src/hevcq/worker"
CHUNKS = "tests/worker/chunks"
FAILURES, JOBS = (f"{CHUNKS}/test_chunk_failures.py",), (f"{CHUNKS}/test_chunked_jobs.py",)
UNFIT = (f"{CHUNKS}/test_unfit_parts.py",)
GUARDS = (f"{CHUNKS}/test_split_guards.py",)
FOUND = (f"{CHUNKS}/test_found_parts.py",)
LEFTOVERS = (f"{CHUNKS}/test_leftovers.py",)
LATE = (f"{CHUNKS}/test_late_sweeps.py",)
KILLED = (f"{CHUNKS}/test_chunk_kills.py", "-k")
CHUNK_KILLED = (*KILLED, "kill_at_any_point and part")
SPLIT_KILLED = (*KILLED, "kill_at_any_point and split-")
PARTS = ("tests/contracts/test_subjob_ledger_contract.py", "-k", "memory or embedded")

BUGS = (
    Bug(
        "a part with other frames than its chunk",
        f"{WORKER}/chunk.py",
        "    if (frames, first_pts, last_pts) != (chunk.frames, chunk.start_pts, chunk.last_pts):",
        "    if False:",
        UNFIT,
    ),
    Bug(
        "a chunk of a source that was replaced meanwhile",
        f"{WORKER}/chunk.py",
        "            self._kit.retry_control_call(lambda: self._store.check(self._source))\n\n",
        "            pass\n\n",
        UNFIT,
    ),
    Bug(
        "another's part taken unread",
        f"{WORKER}/chunk.py",
        "        if not self._is_this(told, seen, sha256, size):",
        "        if False:",
        FOUND,
    ),
    Bug(
        "the last chunk sends no join",
        f"{WORKER}/chunk.py",
        "        send_join(self._kit, self._task)\n        return Done()",
        "        return Done()",
        JOBS,
    ),
    Bug(
        "a chunk recorded before its part is there",
        f"{WORKER}/chunk.py",
        "            self._require_ours(chunk, report)\n",
        "            self._require_ours(chunk, report)\n"
        "            self._moves.complete(RenditionRef(key=self._key(chunk), size=1,"
        " sha256='0' * 64, certificate_key='x'), cpu_s=0)\n",
        CHUNK_KILLED,
    ),
    Bug(
        "the join does not wait for every chunk",
        f"{WORKER}/join.py",
        "        if len(chunks) != self._split.chunks or any(p.state is not JobState.DONE for p in chunks):",
        "        if len(chunks) != self._split.chunks:",
        JOBS,
    ),
    Bug(
        "a part with other bytes than were recorded joined",
        f"{WORKER}/join.py",
        "                if sha256 == there.sha256:",
        "                if sha256:",
        UNFIT,
    ),
    Bug(
        "a part that is gone is not made again",
        f"{WORKER}/join.py",
        "                lambda: self._ledger.reopen(part, who=self._claimed.worker, why=reason)\n",
        "                lambda: None\n",
        FAILURES,
    ),
    Bug(
        "a joined film that lacks frames",
        f"{WORKER}/join.py",
        "        if report.frames != film.chunks.frames:",
        "        if False:",
        UNFIT,
    ),
    Bug(
        "a joined film that fails a gate buries its job",
        f"{WORKER}/join.py",
        "        return isinstance(error, (PartUnfit, VerificationFailed))",
        "        return isinstance(error, PartUnfit)",
        FAILURES,
    ),
    Bug(
        "a joined rendition encoded twice after a kill",
        f"{WORKER}/join.py",
        "        if earlier is not None:\n            return self._complete",
        "        if False:\n            return self._complete",
        FOUND,
    ),
    Bug(
        "a plan that was tampered with",
        f"{WORKER}/parts.py",
        "        if sha256_bytes(content) != self._split.plan_sha256:",
        "        if False:",
        GUARDS,
    ),
    Bug(
        "a dead part leaves its job waiting",
        f"{WORKER}/parts.py",
        "                verdict = end_job(self._end, self._job.job_id, decided)\n",
        "                verdict = decided\n",
        FAILURES,
    ),
    Bug(
        "every dead part of one job is a dead letter",
        f"{WORKER}/parts.py",
        "        return decided if mine else Done()",
        "        return decided",
        FAILURES,
    ),
    Bug(
        "a dead job's parts forgotten before their letter is written",
        f"{WORKER}/parts.py",
        "sweep(self._kit, self._job.job_id, forget=False)",
        "sweep(self._kit, self._job.job_id)",
        LEFTOVERS,
    ),
    Bug(
        "a join that sends a chunk back goes uncounted",
        f"{WORKER}/join.py",
        "        self.sent_back = True\n",
        "",
        FAILURES,
    ),
    Bug(
        "a chunk goes on although its job ended",
        f"{WORKER}/parts.py",
        "            self._lease.end(Superseded())",
        "            pass",
        FAILURES,
    ),
    Bug(
        "the join sent while a chunk is missing",
        f"{WORKER}/parts.py",
        "    if not chunks or any(p.state is not JobState.DONE for p in chunks):\n        return\n",
        "    if not chunks:\n        return\n",
        GUARDS,
    ),
    Bug(
        "a part of an older split taken for one of this",
        f"{WORKER}/take.py",
        "split is not None and split.name == task.split",
        "split is not None",
        GUARDS,
    ),
    Bug(
        "a chunk's dead letter that was redriven thrown away",
        f"{WORKER}/take.py",
        "        return not (job.state is JobState.DEAD and ",
        "        return not (False and ",
        GUARDS,
    ),
    Bug(
        "two splits of one film share a name",
        f"{WORKER}/split.py",
        '        name = f"{chunks.digest}-{self._claimed.fence.number}"',
        '        name = f"{chunks.digest}-1"',
        FAILURES,
    ),
    Bug(
        "a film split again after its split was given up",
        f"{WORKER}/split.py",
        "        if job is not None and job.whole:",
        "        if False:",
        FAILURES,
    ),
    Bug(
        "a split announced before its chunks are queued",
        f"{WORKER}/split.py",
        "    waiting = [p.part.chunk for p in parts",
        '    with around(kit.faults, "announce"):\n'
        "        kit.retry_control_call(lambda: subjobs.announce(task.job_id, split.name))\n"
        "    waiting = [p.part.chunk for p in parts",
        SPLIT_KILLED,
    ),
    Bug(
        "the chunks of a film without a group",
        f"{WORKER}/split.py",
        "        group=task.source.source_id,",
        '        group="",',
        JOBS,
    ),
    Bug(
        "the plan of a film that is being split swept",
        f"{WORKER}/split.py",
        '    return job.state is JobState.RUNNING and split.endswith(f"-{job.fence}")',
        "    return False",
        LEFTOVERS,
    ),
    Bug(
        "a late sweep takes what a newer split goes by",
        f"{WORKER}/split.py",
        "                if not _in_use(job, stored.key.removeprefix(work_folder(job_id))):",
        "                if stored is not None:",
        LATE,
    ),
    Bug(
        "the parts of a newer split forgotten by a late sweep",
        "src/hevcq/embedded/jobs/parts.py",
        "whole.job_id = :job_id AND whole.state = 'split')\"",
        "whole.job_id = :job_id AND whole.state = 'none')\"",
        LATE,
    ),
    Bug(
        "parts counted as jobs",
        "src/hevcq/embedded/jobs/ledger.py",
        "COUNT(*) FROM job WHERE parent = '' GROUP BY",
        "COUNT(*) FROM job GROUP BY",
        PARTS,
    ),
)
