"""Forged certificates in the store and beside videos: another proof is no proof, and costs nothing."""

from __future__ import annotations

import os
import threading

import pytest

from chaos.hostile_kit import in_time, plant
from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState
from hevcq.errors import HevcqError, SourceUnreadable, UsageError, VerificationFailed
from hevcq.library.own_files import Certificates
from hevcq.ports.catalog import Mode, PlacementState
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.proofs import OwnRenditions, TargetState
from hevcq.usecases.verify_files import read_certificate, sha256
from support.fakes.farm import Farm, adoptable
from support.fakes.store import MemoryStore
from support.ingest.run import Bench
from support.library import proof_of, video


@pytest.fixture
def farm(tmp_path) -> Farm:
    return adoptable(tmp_path)


class Endless:
    """What can be read from for ever."""

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size < 2**26, "read whole"
        return b" " * size

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def endless(store: MemoryStore, name: str) -> None:
    """Let the object `name` have no end."""
    opened = store.open
    store.open = lambda key, **span: Endless() if key == name else opened(key, **span)


def test_a_certificate_of_gigabytes_in_the_store_is_not_read_and_costs_the_job_nothing(farm):
    endless(farm.store, farm.store.stat(farm.key(farm.source)).metadata["certificate"])
    assert farm.until_settled(farm.source).state is JobState.DONE
    assert farm.encoder.calls.count("encode") == 2


def error_of(call) -> object:
    """Return the error that a call ends with, in time."""

    def caught() -> object:
        try:
            return call()
        except (OSError, HevcqError) as error:
            return error

    return in_time(caught)


@pytest.mark.parametrize("mode", [Mode.BESIDE, Mode.REPLACE])
def test_a_certificate_of_gigabytes_is_not_read_by_who_collects_and_places_nothing(tmp_path, mode):
    bench = Bench(tmp_path, where=Destination(mode))
    item = bench.video()
    job = bench.queue(item)
    endless(bench.backend.store, bench.work(job).certificate_key)
    with pytest.raises(VerificationFailed):
        bench.collector.collect(bench.done(job), threading.Event())
    assert [path.name for path in bench.media.iterdir() if path.is_file()] == [item.path.name]
    assert item.path.read_bytes() == b"clip" * 100
    assert bench.catalog.placement(job.job_id).state is PlacementState.REFUSED


@pytest.mark.parametrize("what", ["pipe", "giant"])
def test_a_pipe_or_giant_as_a_targets_certificate_is_a_strangers(tmp_path, monkeypatch, what):
    made = video(tmp_path)
    target = made.source.with_name("video.hevc.mkv")
    target.write_bytes(made.rendition)
    trap = proof_of(made)
    trap.parent.mkdir(parents=True)
    plant(trap, what)
    monkeypatch.setattr(Certificate, "parse", lambda _text: pytest.fail("read whole"))
    ours = OwnRenditions(None, Certificates())
    assert (
        in_time(lambda: ours.state(target, made.source, len(made.original))) is TargetState.STRANGER
    )


@pytest.mark.parametrize("what", ["pipe", "giant", "link to a pipe"])
def test_no_pipe_or_giant_under_a_certificates_name_holds_a_verification_up(
    tmp_path, monkeypatch, what
):
    rendition = tmp_path / "video.hevc.mkv"
    trap = tmp_path / "video.hevc.mkv.certificate.json"
    plant(trap, what)
    monkeypatch.setattr(Certificate, "parse", lambda _text: pytest.fail("read whole"))
    error = error_of(lambda: read_certificate(rendition))
    assert isinstance(error, VerificationFailed if what == "giant" else UsageError), error
    assert "\n" not in str(error)


def test_a_pipe_in_the_place_of_a_certified_rendition_is_not_waited_for(tmp_path):
    trap = tmp_path / "video.hevc.mkv"
    os.mkfifo(trap)
    error = error_of(lambda: sha256(trap, threading.Event()))
    assert isinstance(error, SourceUnreadable), error
    assert "not a regular file" in str(error)
