"""Random lives of a library: whatever a person, hevcq, kills and bad disks do in turn, nothing of a
person's is lost, overwritten or left half done.

LIFE_EXAMPLES says how many lives are tried of each kind of file system, and asks for a shortest one
where one breaks; without it a few are tried, and one that breaks is told as it was.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, rule, run_state_machine_as_test

from hevcq.errors import HevcqError
from hevcq.library.filesystem import fingerprint_of
from hevcq.library.place import ToPlace, place
from hevcq.library.replacement.refusals import Replacement
from hevcq.library.replacement.retention import Expiry
from hevcq.library.replacement.steps import RecoveryOutcome
from hevcq.library.scanning.scan import FoundFile, find
from library.replacement.lives import (
    content_of,
    made_from,
    own_files,
    real,
    records,
    temporary,
    visible,
)
from library.replacement.lives_machine import (
    ANY,
    CALL,
    KEEP,
    ONE,
    PROFILE,
    SUFFIX,
    TROUBLE,
    WAYS,
    Life,
    Trouble,
)
from support.library import DAY, Video, certificate, for_ever, one, sha

EXAMPLES, SHORT, STEPS = int(os.environ.get("LIFE_EXAMPLES", "0")), 25, 40


class Lives(Life):
    """What hevcq does there, and what must hold whatever happened."""

    plans = Bundle("plans")

    @rule(
        target=plans,
        number=ONE,
        suffix=SUFFIX,
        profile=PROFILE,
        keep=KEEP,
        inner=st.booleans(),
    )
    def a_job_is_encoded(self, number, suffix, profile, keep, inner) -> Video | None:
        if (source := self._one(number)) is None or source.suffix == ".json":
            return None
        content = source.read_bytes()
        facts, rendition = os.lstat(source), made_from(content, profile)
        name = source.relative_to(self.library)
        change = Replacement(
            source=source,
            target=source if suffix is None else source.with_suffix(suffix),
            fingerprint=fingerprint_of(facts),
            certificate=certificate(source, content, rendition, profile).model_copy(
                # Inode and folder are others in every run; the order of jobs is by their ids.
                update={
                    "job_id": sha(f"{name}{profile}{facts.st_mtime_ns}".encode() + content)[:32]
                }
            ),
            keep_days=keep,
        )
        return Video(self._root_of(source, inner), change, content, rendition, facts)

    @rule(made=plans, trouble=TROUBLE)
    def an_original_is_replaced(self, made: Video | None, trouble: Trouble) -> None:
        if made is not None:
            self._replace(made, trouble, made.fetch)

    @rule(
        number=ONE, suffix=SUFFIX, profile=PROFILE, keep=KEEP, inner=st.booleans(), trouble=TROUBLE
    )
    def a_video_is_encoded_and_replaced(
        self, number, suffix, profile, keep, inner, trouble: Trouble
    ) -> None:
        made = self.a_job_is_encoded(number, suffix, profile, keep, inner)
        self.an_original_is_replaced(made, trouble)

    @rule(
        made=plans,
        name=ANY,
        number=ONE,
        what=st.sampled_from(["save", "delete", "expire", "recover"]),
    )
    def something_happens_while_a_rendition_is_fetched(
        self, made, name: str, number: int, what: str
    ) -> None:
        if made is None:
            return

        def fetch(new: Path) -> str:
            digest = made.fetch(new)
            if what == "save":
                self.a_file_appears(name)
            elif what == "delete":
                self.a_file_is_deleted(number)
            elif what == "expire":
                self._expire(made.root, None)
            else:
                self._recover(made.root, None, spared=new)
            self.before = self._all()
            return digest

        self._replace(made, None, fetch)

    def _replace(self, made: Video, trouble: Trouble, fetch) -> None:
        job, root = made.change.certificate.job_id, made.root
        had = own_files(root)
        done = self._did(
            root, trouble, lambda: self._swap(root, trouble).replace(made.change, fetch)
        )
        look = self.before[0].get(real(made.source))
        begun = {f"{folder}/{job}.json" for folder in ("journal", "kept")}
        if any(had.get(name) != own_files(root).get(name) for name in begun) and look is not None:
            self.model.begins(made, self.before[0])
        if isinstance(done, HevcqError):
            if f"{job}.json" in records(root) and f"kept/{job}.json" not in had:
                # Committed, and then the disk stayed broken: what can be seen is what it says.
                assert trouble is not None
                assert content_of(made.target) == made.rendition
            elif root not in self.model.unsettled:
                self._nothing_changed()
            if "original is unchanged" in str(done) and look is not None:
                assert visible(self.model.folder).get(real(made.source)) == look
        elif done is not None and done.already:
            assert content_of(done.target) == made.rendition
            self._nothing_changed()
        elif done is not None:
            assert content_of(made.target) == made.rendition
            assert content_of(done.retained) == made.original
            assert made.source == made.target or not made.source.exists()
            self._only_changed(made.source, made.target)

    @rule(
        number=ONE,
        suffix=SUFFIX,
        kill=st.tuples(st.sampled_from(["before", "after", "torn"]), CALL),
        undo=st.booleans(),
        acts=st.lists(
            st.tuples(
                st.sampled_from(["source", "target"]),
                st.sampled_from(["save", "delete", "restore"]),
            ),
            max_size=2,
        ),
    )
    def a_kill_then_a_person_then_a_start(self, number, suffix, kill, undo, acts) -> None:
        made = self.a_job_is_encoded(number, suffix, "hevc", 1.0, inner=False)
        if made is None:
            return
        self._replace(made, None if undo else kill, made.fetch)
        if undo:
            self._undo(made.root, made.change.certificate.job_id, kill)
        places = {"source": made.source, "target": made.target}
        for where, what in acts:
            self._acts(places[where], what, made.original)
        self._recover(made.root, None)

    @rule(made=plans, trouble=TROUBLE)
    def a_rendition_is_placed_beside(self, made: Video | None, trouble: Trouble) -> None:
        if made is None:
            return
        proof = made.change.certificate
        target = made.source.with_suffix(f".{proof.profile}.mkv")
        rendition = ToPlace(made.root, made.source, target, proof)
        fs = self._fs(made.root, trouble)
        done = self._did(made.root, trouble, lambda: place(rendition, one(made.fetch), fs))
        if isinstance(done, HevcqError) and trouble is None:
            self._nothing_changed()
        elif done is not None and not isinstance(done, HevcqError):
            assert content_of(target) == made.rendition
            self._only_changed(target)

    @rule(made=plans, trouble=TROUBLE)
    def a_job_is_undone(self, made: Video | None, trouble: Trouble) -> None:
        if made is not None:
            self._undo(made.root, made.change.certificate.job_id, trouble)

    @rule(number=ONE, trouble=TROUBLE)
    def a_kept_job_is_undone(self, number: int, trouble: Trouble) -> None:
        kept = self.model.kept()
        if kept:
            root, each = kept[number % len(kept)]
            self._undo(root, each["job_id"], trouble)

    @rule(inner=st.booleans())
    def all_is_undone(self, inner: bool) -> None:
        for root in self.model.roots[:: -1 if inner else 1]:
            known = records(root).values()
            for each in sorted(known, key=lambda one: -one["created_at"]):
                self._undo(root, each["job_id"], None)

    def _undo(self, root: Path, job: str, trouble: Trouble) -> bool:
        done = self._did(root, trouble, lambda: self._swap(root, trouble).undo(job))
        video, known = self.model.videos.get((root, job)), f"{job}.json" in records(root)
        if video is not None:
            self.model.takes_back(video)
        if done is None:  # killed
            return False
        if isinstance(done, HevcqError):
            if root not in self.model.unsettled and (trouble is None or known):
                self._nothing_changed()
                return False
            if video is None or root in self.model.unsettled or trouble is None:
                return False
        assert not known
        if f"kept/{job}.json" not in self.before[1][self.model.roots.index(root)]:
            return False
        assert visible(self.model.folder)[video.source] == self.model.looks[root, job]
        assert video.source == video.target or content_of(video.target) != video.rendition
        self._only_changed(video.source, video.target)
        return True

    @rule(inner=st.booleans(), trouble=TROUBLE)
    def originals_expire(self, inner: bool, trouble: Trouble) -> None:
        self._expire(self.model.roots[-1 if inner else 0], trouble)

    def _expire(self, root: Path, trouble: Trouble) -> None:
        now, due = self.clock.now(), []
        for each in records(root).values():
            target = real(root / each["target"])
            over = each["keep_days"] is not None and (
                each["created_at"] + each["keep_days"] * DAY <= now
            )
            video = self.model.videos[root, each["job_id"]]
            if over and not self._is_damaged(target, each, video):
                due.append(video)
        done = self._did(root, trouble, lambda: self._swap(root, trouble).expire(now, for_ever))
        if done is not None and not isinstance(done, HevcqError):
            gone = {e.record.job_id for e in done if e.outcome is Expiry.REMOVED}
            assert gone <= {video.change.certificate.job_id for video in due}
        elif trouble is None:
            self._nothing_changed()
        self._only_changed()
        for video in due:
            if content_of(video.source) != video.original:
                self.model.debts.discard((real(video.source), video.original))

    def _is_damaged(self, target: Path, record: dict, video: Video) -> bool:
        """Whether bytes changed and the time did not: a person who replaces a video changes both."""
        content = content_of(target)
        if content is None or target.stat().st_mtime_ns != record["fingerprint"]["mtime_ns"]:
            return False
        ours = {each.rendition for (_, _), each in self.model.videos.items()}
        return content not in {video.original, *ours}

    @rule(inner=st.booleans(), trouble=TROUBLE)
    def hevcq_starts_again(self, inner: bool, trouble: Trouble) -> None:
        self._recover(self.model.roots[-1 if inner else 0], trouble)

    def _recover(self, root: Path, trouble: Trouble, spared: Path | None = None) -> None:
        open_jobs = {name.split(".")[0] for name in records(root, "journal")}
        changed = [self.model.videos[root, job] for job in open_jobs]
        done = self._did(root, trouble, lambda: self._swap(root, trouble).recover())
        for video in changed:
            self.model.takes_back(video)
        if trouble is not None or done is None or isinstance(done, HevcqError):
            assert trouble is not None
            return
        for each in done:
            video = self.model.videos[root, each.job_id]
            if each.outcome is RecoveryOutcome.FINISHED and each.undo:
                assert content_of(video.source) == video.original
            elif each.outcome is RecoveryOutcome.FINISHED:
                assert content_of(video.target) == video.rendition
        self._only_changed(
            *(path for video in changed for path in (video.source, video.target)),
        )
        stuck = [each for each in done if each.outcome is RecoveryOutcome.STUCK]
        assert not stuck or self.away.exists(), stuck
        settled = self._all()
        again = self._swap(root).recover()
        assert [each for each in again if each.outcome is not RecoveryOutcome.STUCK] == []
        assert self._all() == settled
        if not stuck:
            assert records(root, "journal") == {}
            inner = {
                p
                for r in self.model.roots
                if r != root and r in self.model.unsettled
                for p in temporary(r)
            }
            assert [p for p in temporary(root) if p != spared and p not in inner] == []
            self.model.unsettled.discard(root)

    @rule()
    def the_library_is_scanned(self) -> None:
        found = {item.path for item in find(self.model.roots) if isinstance(item, FoundFile)}
        seen = visible(self.library)
        there = {p for p in seen if content_of(p) and p.suffix in {".avi", ".mkv", ".mp4"}}
        made = {p for p in there if p.stem.endswith((".hevc", ".720p"))}
        assert there - made <= found <= there

    # What must hold whatever happened.

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "model"):
            assert self.model.unpaid() == []
            assert self.model.bare() == []
            self.model.sees()

    @rule()
    def every_original_comes_back(self) -> None:
        """Settle all, and undo all; what is in the way of an original is moved away."""
        self.a_folder_comes_back()
        for root in self.model.roots:
            self._recover(root, None)
            known = records(root).values()
            for each in sorted(known, key=lambda one: -one["created_at"]):
                video = self.model.videos[root, each["job_id"]]
                if root not in self.model.unsettled and (
                    content_of(root / each["retained"]) == video.original
                ):
                    self._bring_back(video)

    def _bring_back(self, made: Video) -> None:
        root, job = made.root, made.change.certificate.job_id
        if self._undo(root, job, None) or self.away.exists():
            return
        if made.source.is_file():
            self._acts(made.source, "delete", b"")
            assert self._undo(root, job, None)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_happens_in_a_library_nothing_of_a_persons_is_lost(way):
    asked = settings(
        max_examples=EXAMPLES or SHORT,
        phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    kind = type("".join(word.title() for word in way.split()) + "Lives", (Lives,), {"way": way})

    run_state_machine_as_test(kind, settings=asked)
