"""A library whose `.hevcq` is a link (an unpacked archive may bring one) gets nothing written through it."""

from pathlib import Path

import pytest

from hevcq.errors import LibraryError
from hevcq.library.filesystem import FileSystem
from hevcq.library.place import ToPlace, place
from hevcq.library.replacement.swap import Swap
from support.clips import ManualClock
from support.library import DAY, for_ever, one, video

PLACES = [".hevcq", ".hevcq/busy", ".hevcq/certificates", ".hevcq/journal", ".hevcq/kept"]


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(params=PLACES)
def linked(request, tmp_path: Path):
    """A video in a library of which one own folder is a link, and where it leads."""
    made = video(tmp_path / "library")
    away = tmp_path / "away"
    away.mkdir()
    link = made.root / request.param
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(away)
    return made, link, away


def test_nothing_is_replaced_placed_or_undone_through_a_link(linked) -> None:
    made, link, away = linked
    swap, before = Swap(made.root, ManualClock()), everything(made.root)
    target = made.source.with_name("video.hevc.mkv")
    beside = ToPlace(made.root, made.source, target, made.change.certificate)

    for action in (
        lambda: swap.replace(made.change, made.fetch),
        lambda: place(beside, one(made.fetch), FileSystem()),
        lambda: swap.undo(made.change.certificate.job_id),
        swap.recover,
        lambda: swap.expire(100 * DAY, for_ever),
        lambda: list(swap.kept()),
    ):
        with pytest.raises(LibraryError) as caught:
            action()
        assert f"{link} is a symbolic link" in str(caught.value)
        assert "Remove the link" in str(caught.value)

    assert everything(away) == []
    assert everything(made.root) == before
    assert made.source.read_bytes() == made.original
