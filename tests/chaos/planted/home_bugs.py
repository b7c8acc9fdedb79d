"""Bugs in what brings renditions home, and originals back: collecting (G9) and the undo."""

from __future__ import annotations

from .plant import Bug

USECASES, LIBRARY = "src/hevcq/usecases", "src/hevcq/library"
COLLECT = ("tests/unit/ingest/test_collect.py",)
AGAIN = ("tests/unit/ingest/test_collect_again.py",)
UNDO = ("tests/library/test_undo.py", "-k", "not thousand")
ORDER = ("tests/library/test_undo_order.py",)
KEPT = ("tests/library/test_swap_kept_and_undone.py",)
RACES = ("tests/library/test_swap_races.py", "tests/library/test_strangers_between.py")
KILLED = ("tests/library/test_swap_killed_everywhere.py", "-k", "an_undo_killed and before")
FAILING = (*KILLED[:2], "one_failing_call_calls_an_undo and ENOSPC")

BUGS = (
    Bug(
        "a certificate of another job brought home",
        f"{USECASES}/collect.py",
        "        if proof.job_id != placement.job_id or proof.rendition_sha256 != ref.sha256:",
        "        if False:",
        COLLECT,
    ),
    Bug(
        "a rendition not probed again where it belongs",
        f"{USECASES}/collect.py",
        "            self._probe_again(target, stop)",
        "            pass",
        COLLECT,
    ),
    Bug(
        "a rendition put beside what its source is not any more",
        f"{USECASES}/collect.py",
        "        if not same_bytes(now, placement.fingerprint):",
        "        if False:",
        COLLECT,
    ),
    Bug(
        "the store emptied before the rendition is home",
        f"{USECASES}/collect.py",
        "        try:\n            done = self._place(placement, ref, stop)",
        "        self._tidy(ref)\n        try:\n            done = self._place(placement, ref, stop)",
        COLLECT,
    ),
    Bug(
        "a rendition that was not placed thrown away",
        f"{USECASES}/collect.py",
        "        if isinstance(error, SourceChanged):\n            self._tidy(ref)",
        "        self._tidy(ref)",
        COLLECT,
    ),
    Bug(
        "a file that is no older rendition cleared away",
        f"{USECASES}/collect.py",
        "            if fs.lstat(target) is None or fs.digest(target) != placement.sha256:",
        "            if fs.lstat(target) is None:",
        AGAIN,
    ),
    Bug(
        "what may succeed later refused for good",
        f"{USECASES}/collect.py",
        "            if not isinstance(error, LATER):",
        "            if True:",
        COLLECT,
    ),
    Bug(
        "the rendition's SHA-256 in place not asked by a swap",
        f"{LIBRARY}/swap.py",
        "            if not holds_rendition(self._fs, new, change.certificate):",
        "            if False:",
        (*RACES, "tests/library/test_swap.py"),
    ),
    Bug(
        "an undo keeps the rendition beside the original",
        f"{LIBRARY}/restore.py",
        "        if fs.lstat(gone) is not None:\n            fs.unlink(gone)\n        fs.fsync_dir",
        "        fs.fsync_dir",
        ("tests/library/test_swap.py",),
    ),
    Bug(
        "an undo takes away what a person put there",
        f"{LIBRARY}/restore.py",
        "        if not self._steps.is_rendition(record, record.target):\n            return\n",
        "",
        (*KEPT, *RACES),
    ),
    Bug(
        "an undo that cannot end loses the rendition",
        f"{LIBRARY}/restore.py",
        "                move_new(fs, gone, record.target)\n            else:",
        "                fs.unlink(gone)\n            else:",
        FAILING,
    ),
    Bug(
        "an undo forgotten before it is done",
        f"{LIBRARY}/swap.py",
        "                self._journal.begin_undo(record)\n",
        "                self._journal.drop(record)\n",
        KILLED,
    ),
    Bug(
        "a first replacement undone before the second",
        f"{USECASES}/undo.py",
        "key=lambda one: (-one.at, one.job_id)",
        "key=lambda one: (one.at, one.job_id)",
        ORDER,
    ),
    Bug(
        "an undo of what was asked for in part only",
        f"{USECASES}/undo.py",
        "    return request.since is None or one.at >= request.since",
        "    return True",
        ORDER,
    ),
    Bug(
        "an undo that the catalog does not learn of",
        f"{USECASES}/undo.py",
        "            state=PlacementState.UNDONE,\n",
        "",
        UNDO,
    ),
    Bug(
        "a dry run that undoes",
        f"{USECASES}/undo.py",
        "            size = swap.check_undo(one.job_id).fingerprint.size",
        "            size = swap.undo(one.job_id).fingerprint.size",
        UNDO,
    ),
)
