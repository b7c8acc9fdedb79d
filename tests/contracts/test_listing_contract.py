"""What every ledger promises of its listings: a page goes on where the one before ended."""

from itertools import islice
from typing import Any

from contracts.backends import source
from hevcq.backends.sql import statements
from hevcq.domain.job import JobRecord, JobState, job_id
from hevcq.domain.verdict import FailureClass
from hevcq.ports.ledger import Granted, JobFilter, ListOrder


def test_a_listing_goes_on_after_any_of_its_jobs(world):
    ledger = world.ledger
    for number in range(2):
        ledger.register(source(number), ["hevc", "720p"])
        world.advance(10)
    every = list(ledger.jobs(JobFilter()))
    ids, newest = [job.job_id for job in every], every[0]

    def after(last: JobRecord, **wanted: Any) -> list[str]:
        before = (last.updated_at, last.job_id)
        states = frozenset({JobState.QUEUED})
        return [
            job.job_id for job in ledger.jobs(JobFilter(states=states, before=before, **wanted))
        ]

    for number, job in enumerate(every):
        assert after(job) == ids[number + 1 :]
    assert after(newest, updated_after=every[-1].updated_at) == ids[1:2]
    gone = newest.model_copy(update={"job_id": "0" * 32})
    assert set(ids[2:]) <= set(after(gone)), "nothing is left out"
    claimed = ledger.claim(newest.source, newest.profile, owner="a", lease_s=60)
    assert isinstance(claimed, Granted)
    assert set(ids[2:]) <= set(after(newest)), "of a job that moved since, neither"


def test_a_folder_lists_its_own_jobs_alone_whatever_became_of_them(world):
    inside = [source("a/1"), source("a/b/2"), source("a/b/c/3")]
    for each in [*inside, source("a"), source("ab/4"), source("b/a/5"), source("A/6")]:
        world.ledger.register(each, ["hevc"])
        world.advance(10)
    for each in (inside[1], inside[0]):
        granted = world.ledger.claim(each, "hevc", owner="a", lease_s=60)
        assert isinstance(granted, Granted)
        world.advance(10)
    world.ledger.skip(job_id(inside[1], "hevc"), 1, "small")

    def listed(*folders: str, **wanted: Any) -> list[str]:
        prefixes = tuple(f"TODO/all/{folder}" for folder in folders)
        found = world.ledger.jobs(JobFilter(key_prefixes=prefixes, **wanted))
        return [job.source.key[9:-4] for job in found]

    assert listed("a/") == ["a/b/2", "a/1", "a/b/c/3"]
    assert listed("a/b/", "a/", "none/") == ["a/b/2", "a/1", "a/b/c/3"], "each of them once"
    assert listed("a/", states=frozenset({JobState.RUNNING, JobState.DEAD})) == ["a/1"]
    assert listed("a/", profile="720p") == []
    first, *others = world.ledger.jobs(JobFilter(key_prefixes=("TODO/all/a/",)))
    assert listed("a/", before=(first.updated_at, first.job_id)) == [
        job.source.key[9:-4] for job in others
    ]
    assert len(list(world.ledger.jobs(JobFilter(key_prefixes=("",))))) == 7


def test_a_search_leaves_out_no_job_whose_path_has_the_text(world, monkeypatch):
    names = ("100%25 a_b! (1)", "Über Bäume", "ÜBER ALLES", "Фильм", "other")
    for name in names:
        world.ledger.register(source(name), ["hevc"])
        world.advance(10)
    assert world.ledger.cancel(job_id(source("other"), "hevc"), "Cancelled.")
    upload = source("x").model_copy(update={"key": "UPLOAD/v1/Dog with Doris.mp4"})
    uploaded = upload.key[9:-4]
    world.ledger.register(upload, ["hevc"])
    world.advance(10)

    def found(text: str, **wanted: Any) -> list[str]:
        listed = world.ledger.jobs(JobFilter(text=text, **wanted))
        return [job.source.key[9:-4] for job in listed]

    searches = {
        "0% A_B!": names[:1],
        "über": names[2:0:-1],
        "фильм": names[3:4],
        "none": (),
        "/all": (),
        "do": (uploaded,),
        "d_g": (),
    }
    for most in (3_000, 0):
        monkeypatch.setattr(statements, "MAX_NAMED", most)
        for text, expected in searches.items():
            assert set(expected) <= set(found(text))
            if world.ledger.searches:
                assert found(text) == list(expected), (text, most)
        if world.ledger.searches:
            assert found("über", order=ListOrder.PATH_BACK) == [names[1], names[2]]
            newest = world.ledger.get(job_id(source(names[2]), "hevc"))
            before = (newest.updated_at, newest.job_id)
            assert found("über", before=before) == [names[1]]
            assert found("über", states=frozenset({JobState.DEAD})) == []
            assert found("", cause=FailureClass.CANCELLED) == ["other"]
            assert found("", cause=FailureClass.DAMAGED) == []


def test_every_order_of_a_ledger_pages_without_a_gap(world):
    names = ("m", "a", "z", "k")
    for number, name in enumerate(names):
        made = source(name).model_copy(update={"size": (number * 7) % 5 + 1})
        world.ledger.register(made, ["hevc"])
        world.advance(10)
    facts = {
        ListOrder.NEWEST: (lambda job: job.updated_at, True),
        ListOrder.OLDEST: (lambda job: job.updated_at, False),
        ListOrder.PATH: (lambda job: job.source.key, False),
        ListOrder.PATH_BACK: (lambda job: job.source.key, True),
        ListOrder.LARGEST: (lambda job: job.source.size, True),
        ListOrder.SMALLEST: (lambda job: job.source.size, False),
    }
    for order in world.ledger.orders:
        by, back = facts[order]
        found, before = [], None
        while page := list(islice(world.ledger.jobs(JobFilter(order=order, before=before)), 1)):
            found += page
            before = (page[0].updated_at, page[0].job_id)
        assert found == sorted(found, key=by, reverse=back), order
        assert len(found) == len(names)
    large = [job.source.size for job in world.ledger.jobs(JobFilter(larger_than=2))]
    assert sorted(large) == [3, 5]
    (first,) = islice(world.ledger.jobs(JobFilter(order=ListOrder.NEWEST)), 1)
    assert world.ledger.cancel(first.job_id, "Cancelled.")
    world.advance(10)
    assert world.ledger.causes(JobFilter()) == {None: 3, FailureClass.CANCELLED: 1}
    assert world.ledger.causes(JobFilter(states=frozenset({JobState.QUEUED}))) == {None: 3}
