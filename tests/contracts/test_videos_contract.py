"""What every store of uploaded videos' records and of accounts promises (ports/videos.py)."""

import threading
from typing import Any

import pytest

from contracts.backends import World, source
from hevcq.domain.job import JobState
from hevcq.domain.videos import (
    Quota,
    Upload,
    Video,
    VideoRendition,
    VideoStatus,
    VideoUsage,
    Visibility,
    make_video_id,
)
from hevcq.errors import Conflict, QuotaExceeded
from hevcq.ports.videos import (
    AccountKind,
    Accounts,
    VideoFilter,
    VideoOrder,
    VideoRecords,
)

NO_LIMIT = Quota()
T0 = 1_700_000_000.0


def video(number: int = 1, **facts: Any) -> Video:
    size = facts.pop("size", 1000)
    given: dict[str, Any] = {
        "video_id": make_video_id(T0 + number, number.to_bytes(10)),
        "owner": "ann",
        "title": f"Video {number}",
        "created_at": T0 + number,
        "updated_at": T0 + number,
        "profiles": ("hevc",),
        "upload": Upload(name="a.mov", size=size, expires_at=T0 + 100 + number),
    }
    return Video(**{**given, **facts})


@pytest.fixture
def records(keeps_records: World) -> VideoRecords:
    assert keeps_records.videos is not None
    return keeps_records.videos


def test_a_record_comes_back_as_it_was_written(records):
    made = video(
        title="Ä 'quoted\" \\ title",
        description="two\nlines",
        source=source(),
        status=VideoStatus.DONE,
        renditions=(
            VideoRendition(profile="hevc", job_id="j", state=JobState.DONE, size=2**53 + 1),
        ),
    )
    records.create(made, NO_LIMIT)

    assert records.get(made.video_id) == made
    assert records.get(video(2).video_id) is None
    with pytest.raises(Conflict):
        records.create(made, NO_LIMIT)


def test_a_change_holds_only_against_the_revision_it_was_made_from(records):
    first = video()
    records.create(first, NO_LIMIT)

    second = records.update(first.model_copy(update={"title": "New"}))
    assert second.revision == first.revision + 1
    assert records.get(first.video_id) == second
    with pytest.raises(Conflict):
        records.update(first.model_copy(update={"title": "Lost"}))
    with pytest.raises(Conflict):
        records.delete(first)
    assert records.get(first.video_id) == second

    records.delete(second)
    records.delete(second)
    assert records.get(first.video_id) is None
    with pytest.raises(Conflict):
        records.update(second)
    assert records.usage() == VideoUsage()


def test_of_writers_at_the_same_time_one_wins(records):
    made = video()
    records.create(made, NO_LIMIT)
    outcomes: list[str] = []

    def change(name: str) -> None:
        try:
            records.update(made.model_copy(update={"title": name}))
            outcomes.append(name)
        except Conflict:
            outcomes.append("")

    threads = [threading.Thread(target=change, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    won = [name for name in outcomes if name]
    found = records.get(made.video_id)
    assert found is not None
    assert len(outcomes) == 4
    assert won == [found.title]


def test_pages_are_newest_first_by_owner_and_state(records):
    states = list(VideoStatus)
    for number in range(12):
        owner = "ann" if number % 3 else "bob"
        records.create(video(number, owner=owner, status=states[number % 4]), NO_LIMIT)

    def numbers(**wanted: Any) -> list[int]:
        found, before = [], ""
        while True:
            page = records.page(VideoFilter(before=before, limit=2, **wanted))
            assert len(page.videos) <= 2
            found += [int(each.created_at - T0) for each in page.videos]
            if not page.cursor:
                return found
            before = page.cursor

    assert numbers() == list(range(11, -1, -1))
    assert numbers(owner="bob") == [9, 6, 3, 0]
    assert numbers(statuses=frozenset({VideoStatus.DONE})) == [10, 6, 2]
    wanted = frozenset({VideoStatus.DONE, VideoStatus.FAILED})
    assert numbers(owner="ann", statuses=wanted) == [11, 10, 7, 2]
    assert numbers(text="vIDEO 1") == [11, 10, 1]
    assert numbers(owner="nobody") == []


def test_pages_are_sorted_by_name_or_size_where_the_store_can(records):
    titles = ["cat", "Bee", "ape", "dog", "Bee"]
    for number, title in enumerate(titles):
        records.create(video(number, title=title, size=9 + number % 3), NO_LIMIT)
    records.create(video(9, owner="bob", title="ant", status=VideoStatus.FAILED), NO_LIMIT)

    def numbers(order: VideoOrder, **wanted: Any) -> list[int]:
        found, page = [], records.page(VideoFilter(limit=2, order=order, **wanted))
        while True:
            found += [int(each.created_at - T0) for each in page.videos]
            if not page.cursor:
                return found
            page = records.page(VideoFilter(limit=2, order=order, before=page.cursor, **wanted))

    assert VideoOrder.NEWEST in records.orders
    if VideoOrder.NAME in records.orders:
        assert numbers(VideoOrder.NAME) == [9, 2, 1, 4, 0, 3]
        assert numbers(VideoOrder.NAME, owner="ann", text="bee") == [1, 4]
        assert numbers(VideoOrder.NAME, owner="nobody") == []
    if VideoOrder.SIZE in records.orders:
        assert numbers(VideoOrder.SIZE) == [9, 2, 1, 4, 0, 3]
        assert numbers(VideoOrder.SIZE, statuses=frozenset({VideoStatus.FAILED})) == [9]


def test_a_public_video_is_found_by_its_slug_and_a_private_one_is_not(records):
    made = video()
    records.create(made, NO_LIMIT)
    public = {"visibility": Visibility.PUBLIC, "slug": "holiday-1"}
    shown = records.update(made.model_copy(update=public))

    assert records.by_slug("holiday-1") == shown
    assert records.by_slug("holiday") is None

    other = video(2)
    records.create(other, NO_LIMIT)
    with pytest.raises(Conflict):
        records.update(other.model_copy(update=public))

    records.update(shown.model_copy(update={"visibility": Visibility.PRIVATE}))
    assert records.by_slug("holiday-1") is None


def test_quotas_are_kept_by_the_creation_itself(records):
    quota = Quota(owner_size=2500, owner_open=2, farm_size=4000, farm_open=3)
    records.create(video(1), quota)
    records.create(video(2), quota)
    with pytest.raises(QuotaExceeded, match="2 unfinished uploads"):
        records.create(video(3, size=1), quota)
    two = records.get(video(2).video_id)
    records.update(two.model_copy(update={"status": VideoStatus.PROCESSING}))
    with pytest.raises(QuotaExceeded, match="500 are left"):
        records.create(video(3, size=501), quota)
    records.create(video(3, size=500), quota)
    assert records.usage("ann") == VideoUsage(videos=3, open_uploads=2, size=2500)

    records.create(video(4, owner="bob"), quota)
    with pytest.raises(QuotaExceeded, match="Too many uploads"):
        records.create(video(5, owner="cem"), quota)
    three = records.get(video(3).video_id)
    assert three is not None
    records.delete(three)
    with pytest.raises(QuotaExceeded, match="no room"):
        records.create(video(6, owner="cem", size=1001), quota)
    records.create(video(6, owner="cem", size=1000), quota)
    assert records.usage() == VideoUsage(videos=4, open_uploads=3, size=4000)
    with pytest.raises(QuotaExceeded):
        records.create(video(7, owner="dan", size=1), Quota(owner_size=0))


def test_what_a_video_is_charged_follows_its_files(records):
    made = video(size=1000)
    records.create(made, NO_LIMIT)
    made = records.update(
        made.model_copy(
            update={
                "status": VideoStatus.DONE,
                "source": source(),
                "renditions": (
                    VideoRendition(profile="hevc", job_id="j", state=JobState.DONE, size=300),
                ),
            }
        )
    )
    assert records.usage("ann") == VideoUsage(1, 0, 1300)
    records.update(made.model_copy(update={"raw_deleted_at": T0}))
    assert records.usage("ann") == VideoUsage(1, 0, 300)


def test_an_upload_that_failed_takes_no_room(records):
    made = video(size=1000)
    records.create(made, NO_LIMIT)
    records.update(made.model_copy(update={"status": VideoStatus.FAILED}))
    assert records.usage("ann") == VideoUsage(1, 0, 0)


def test_what_is_due_is_found_by_time(records):
    done = {"status": VideoStatus.DONE, "source": source()}
    waiting = [
        video(1),  # its upload expires at T0 + 101
        video(2, status=VideoStatus.PROCESSING, source=source()),
        video(3, raw_due_at=T0 + 50, **done),
        video(4, raw_due_at=T0 + 5, raw_deleted_at=T0, **done),
        video(5, status=VideoStatus.FAILED),
        video(6, **done),
    ]
    for each in waiting:
        records.create(each, NO_LIMIT)

    def due(after_s: float) -> list[int]:
        return [int(each.created_at - T0) for each in records.due(T0 + after_s)]

    assert due(1) == []
    assert due(2) == [2]
    assert due(60) == [2, 3]
    assert due(101) == [2, 3, 1]


USER, ENDED = AccountKind.USER, AccountKind.ENDED


@pytest.fixture
def accounts(keeps_records: World) -> Accounts:
    assert keeps_records.accounts is not None
    return keeps_records.accounts


def test_a_row_is_kept_replaced_and_removed(accounts):
    row = {"role": "user", "hash": "$argon2id$ä"}
    assert accounts.all(USER) == {}
    assert accounts.get(USER, "anna") is None

    assert accounts.put(USER, "anna", row)
    assert not accounts.put(USER, "anna", {**row, "role": "operator"})
    assert accounts.put(USER, "a#b/ü", row)

    assert accounts.get(USER, "anna") == {**row, "role": "operator"}
    assert set(accounts.all(USER)) == {"anna", "a#b/ü"}
    assert accounts.remove(USER, "anna")
    assert not accounts.remove(USER, "anna")
    assert accounts.get(USER, "anna") is None
    assert accounts.all(USER) == {"a#b/ü": row}


def test_kinds_are_apart(accounts):
    for kind in AccountKind:
        key = "token" if kind is AccountKind.SIGN_IN else "same"
        until = 9e9 if kind is ENDED else None
        assert accounts.put(kind, key, {"sha256": kind.value}, expires_at=until)
    assert accounts.get(AccountKind.PROGRAM, "same") == {"sha256": "tokens"}
    assert accounts.remove(USER, "same")
    assert accounts.get(AccountKind.PROGRAM, "same") is not None
    assert accounts.get(AccountKind.SIGN_IN, "token") == {"sha256": "sign-in"}


def test_what_has_ended_may_be_forgotten_and_nothing_else(accounts):
    for key, until in (("early", 1_000.0), ("late", 9e9)):
        assert accounts.put(ENDED, key, {}, expires_at=until)
    accounts.forget(ENDED, 2_000.0)
    assert accounts.get(ENDED, "late") is not None
    assert accounts.get(ENDED, "never") is None


def test_rows_put_at_the_same_time_are_all_kept(accounts):
    def add(number: int) -> None:
        accounts.put(AccountKind.PROGRAM, str(number), {"n": number})

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(accounts.all(AccountKind.PROGRAM)) == {str(n) for n in range(6)}
