"""Bugs in what touches a person's files: the swap, its journal, the undo."""

from __future__ import annotations

from .plant import Bug

LIBRARY = "src/hevcq/library"
SWAP, KEPT = ("tests/library/test_swap.py",), ("tests/library/test_swap_kept_and_undone.py",)
RACES = ("tests/library/test_swap_races.py", "tests/library/test_strangers_between.py")
KILLED = ("tests/library/test_swap_killed_everywhere.py", "-k", "test_a_swap_killed")
HOSTILE = ("tests/chaos/test_hostile_library.py", "-k", "forged_record or locks_place")
PLACE, POWER = (
    ("tests/library/test_place.py",),
    ("tests/chaos/test_powercut_library.py", "-k", "same"),
)
LIVES = ("tests/library/test_library_lives.py",)
BESIDE = ("tests/library/test_swaps_beside_a_killed_one.py",)

BUGS = (
    Bug(
        "original removed before the rendition is in",
        f"{LIBRARY}/steps.py",
        "        record = self._put_aside(record)\n",
        "        record = self._put_aside(record)\n        self._fs.unlink(record.retained)\n",
        SWAP,
    ),
    Bug(
        "an exchange without a look at what came out",
        f"{LIBRARY}/steps.py",
        "        self._require_unchanged(record, aside)\n        return True\n",
        "        return True\n",
        RACES,
    ),
    Bug(
        "a rename that overwrites",
        f"{LIBRARY}/files.py",
        "        if not _rename_no_replace(old, new):\n"
        "            self._link_then_unlink(old, new)",
        "        old.rename(new)",
        (*RACES, *PLACE),
    ),
    Bug(
        "a small file written in place",
        f"{LIBRARY}/files.py",
        "    fs.write(temp, content)\n    fs.fsync_file(temp)\n    fs.rename(temp, path)\n",
        "    fs.write(path, content)\n    fs.fsync_file(path)\n",
        KILLED,
    ),
    Bug(
        "the fsync after the rename",
        f"{LIBRARY}/files.py",
        "    fs.fsync_file(temp)\n    fs.rename(temp, path)\n",
        "    fs.rename(temp, path)\n    fs.fsync_file(path)\n",
        POWER,
    ),
    Bug(
        "the journal without an fsync",
        f"{LIBRARY}/journal.py",
        '        write_durably(self._fs, self._open / f"{record.job_id}{ENDING}", self._dump(record))',
        '        self._fs.write(self._open / f"{record.job_id}{ENDING}", self._dump(record))',
        POWER,
    ),
    Bug(
        "a rendition placed without an fsync",
        f"{LIBRARY}/place.py",
        "fs.fsync_file(temp)",
        "fs.lstat(temp)",
        POWER,
    ),
    Bug(
        "committed before the rendition is in",
        f"{LIBRARY}/steps.py",
        "        move_new(self._fs, record.new, record.target)\n        self._finish(record)\n",
        "        self._finish(record)\n        move_new(self._fs, record.new, record.target)\n",
        KILLED,
    ),
    Bug(
        "a failed swap not rolled back",
        f"{LIBRARY}/swap.py",
        "            self._give_way(record, error)\n",
        "",
        (
            "tests/library/test_swap_killed_everywhere.py",
            "-k",
            "one_failing_call_rolls and ENOSPC",
        ),
    ),
    Bug(
        "the source's bytes not compared with the certificate",
        f"{LIBRARY}/swap.py",
        "        if self._fs.digest(change.source) != change.certificate.source_sha256:",
        "        if False:",
        SWAP,
    ),
    Bug(
        "what was written to after its digest is replaced",
        f"{LIBRARY}/swap.py",
        "    if now.st_ctime_ns != before.st_ctime_ns:",
        "    if False:",
        ("tests/library/test_swap_races.py",),
    ),
    Bug(
        "the rendition's bytes not compared with the certificate",
        f"{LIBRARY}/place.py",
        "    if size != proof.rendition_size or digest != proof.rendition_sha256:",
        "    if False:",
        (*PLACE, *SWAP),
    ),
    Bug(
        "an undo of a kept original that changed",
        f"{LIBRARY}/restore.py",
        "            self._fs.digest(record.retained) != record.source_sha256\n",
        "            False\n",
        KEPT,
    ),
    Bug(
        "an undo over a stranger's file",
        f"{LIBRARY}/restore.py",
        "        if self._fs.lstat(record.source) is None:\n            return\n",
        "        return\n",
        (*KEPT, *RACES),
    ),
    Bug(
        "an original expires too early",
        f"{LIBRARY}/retain.py",
        "        if end is not None and end <= now:",
        "        if end is not None:",
        KEPT,
    ),
    Bug(
        "an original expires although its rendition is gone",
        f"{LIBRARY}/retain.py",
        "    if not holds(fs, record.target, record.rendition_size, record.rendition_sha256):",
        "    if False:",
        KEPT,
    ),
    Bug(
        "a swap settled by a record that hevcq cannot have written",
        f"{LIBRARY}/journal.py",
        "            self._require_own(record)\n",
        "",
        HOSTILE,
    ),
    Bug(
        "a link followed to a lock",
        f"{LIBRARY}/locks.py",
        "os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_CREAT | os.O_CLOEXEC",
        HOSTILE,
    ),
    Bug(
        "a swap finished over whatever is in the rendition's place",
        f"{LIBRARY}/steps.py",
        "        if self.is_rendition(record, record.target):\n            return True\n",
        "        if self._fs.lstat(record.target) is not None:\n            return True\n",
        LIVES,
    ),
    Bug(
        "a held original forgotten",
        f"{LIBRARY}/steps.py",
        "        self._keep(record)\n        return Settled.HELD, (",
        "        self._journal.drop(record)\n        return Settled.HELD, (",
        LIVES,
    ),
    Bug(
        "a rendition brought home for an original",
        f"{LIBRARY}/restore.py",
        "            self._require_kept(record)\n",
        "",
        LIVES,
    ),
    Bug(
        "two originals to be kept at one place",
        f"{LIBRARY}/retain.py",
        "    alone = next(journal.under_way(), None) is None",
        "    alone = True",
        LIVES,
    ),
    Bug(
        "an earlier certificate not given back",
        f"{LIBRARY}/place.py",
        "    if earlier is not None and ",
        "    if False and earlier is not None and ",
        LIVES,
    ),
    Bug(
        "an expiry of whatever lies at an original's place",
        f"{LIBRARY}/retain.py",
        "    if not holds_original(fs, record.retained, record.fingerprint, record.source_sha256):",
        "    if False:",
        BESIDE,
    ),
    Bug(
        "a certificate over a person's file",
        f"{LIBRARY}/steps.py",
        "        if self._fs.lstat(path) is None or own_certificate(self._fs, record.target) is not None:",
        "        if True:",
        BESIDE,
    ),
    Bug(
        "a killed placement's certificate not swept",
        f"{LIBRARY}/place.py",
        "for path in temps]).encode()",
        "for path in temps[:1]]).encode()",
        PLACE,
    ),
)
