"""`hevcq ingest`: what is named, which options exclude each other, and the table of several libraries."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.ingest import split_libraries
from hevcq.errors import UsageError
from hevcq.library.scanning.scan import probe_files
from hevcq.settings.libraries import KEEP_DAYS, Library
from hevcq.usecases.ingest.request import IngestRequest

TV = Library(name="tv", path=Path("/m/tv"), place="replace", keep_originals=3)
FILMS = Library(name="Films", path=Path("/m/films"), watch=False, schedule=())
BOTH = (TV, FILMS)
LIBRARIES = """
[[libraries]]
name = "tv"
path = "tv"
place = "replace"
keep_originals = 3
max_hours_per_day = 2
[[libraries]]
name = "films"
path = "films"
watch = false
"""


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tv", "films"):
        (tmp_path / name).mkdir()
    (tmp_path / "own.toml").write_text(LIBRARIES)
    monkeypatch.setenv("HEVCQ_CONFIG", str(tmp_path / "own.toml"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Run no ingest; the mock is called with its requests."""
    session = Mock()
    session.return_value.run.return_value = session.return_value.collect.return_value = 0
    monkeypatch.setattr("hevcq.cli.library.ingest_session.Session", session)
    return session


def requests(asked: Mock) -> list[IngestRequest]:
    return list(asked.call_args.args[2])


def test_nothing_named_means_all_and_a_name_means_one():
    assert split_libraries((), BOTH) == (BOTH, ())
    assert split_libraries(("films",), BOTH) == ((FILMS,), ())
    assert split_libraries(("tv", "TV"), BOTH) == ((TV,), ())


def test_a_folder_of_the_same_name_is_written_as_a_path():
    assert split_libraries(("./tv",), BOTH) == ((), (Path("tv"),))
    assert split_libraries(("tv2", "/m/tv"), BOTH) == ((), (Path("tv2"), Path("/m/tv")))
    with pytest.raises(UsageError, match=r"not both; write \./NAME for a folder"):
        split_libraries(("tv", "other"), BOTH)


@pytest.mark.usefixtures("libraries")
def test_a_library_asks_for_what_its_settings_say(hevcq, asked, tmp_path):
    assert hevcq("ingest", "--watch").code == 0

    tv, films = requests(asked)
    assert (tv.roots, tv.replace, tv.keep_days, tv.watch) == ((tmp_path / "tv",), True, 3, True)
    assert (films.replace, films.keep_days, films.watch) == (False, None, False)
    assert films.library is not None


def test_a_path_is_asked_for_with_what_the_command_says(hevcq, asked, tmp_path):
    ran = hevcq("ingest", ".", "--replace", "--keep-originals", "0", "--order", "saving")

    assert ran.code == 0, ran.err
    (made,) = requests(asked)
    assert made == IngestRequest(
        (tmp_path,), replace=True, keep_days=0.0, largest_saving_first=True
    )
    assert hevcq("ingest", "--collect-only").code == 0
    assert requests(asked) == [IngestRequest((Path("/"),), collect_only=True)]


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize(("word", "vmaf"), [("good", 93), ("91.5", 91.5)])
def test_a_quality_is_that_of_the_profiles_that_are_made(hevcq, asked, word, vmaf):
    ran = hevcq("ingest", ".", "--quality", word, "--profile", "720p")

    assert ran.code == 0, ran.err
    profiles = asked.call_args.args[0].profiles
    assert (profiles["720p"].video.quality, profiles["hevc"].video.quality) == (vmaf, None)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(("folder", "days"), [(".", KEEP_DAYS), ("tv", 3)])
def test_shrink_replaces_the_largest_savings_first(hevcq, asked, tmp_path, folder, days):
    assert hevcq("shrink", folder, "--yes").code == 0

    (made,) = requests(asked)
    assert made == IngestRequest(
        ((tmp_path / folder).resolve(),), replace=True, keep_days=days, largest_saving_first=True
    )


SENSELESS = [
    (". --replace --output x", "--replace and --output cannot be combined: choose where"),
    (". --free 5GB", "--free only works with --replace"),
    (". --replace --free much", "--free much"),
    (". --max-cost 5", "--max-cost only works on aws"),
    (". --max-cost 5 --watch", "--max-cost and --watch cannot be combined"),
    (". --fit 0", "--fit 0 must be a size such as '500MiB'"),
    (". --fit 5GB --half", "--fit and --half cannot be combined: choose one"),
    (". --half --quality good", "--half and --quality cannot be combined"),
    (". --replace --half --free 5GB", "--half and --free cannot be combined"),
    (". --half --watch", "--half and --watch cannot be combined: it chooses once"),
    (". --half --no-wait", "--half and --no-wait cannot be combined"),
    (". --half --profile hls", "the profile hls makes none"),
    (". --half --profile hevc --profile 720p", "exactly one profile, not 2 (hevc, 720p)"),
    ("films --half", "are in its settings"),
    (". --sample 1m", "--sample only works with --dry-run, --fit or --half"),
    (". --dry-run --sample soon", "--sample soon must be a duration such as '90s'"),
    (". --budget 20", "--budget 20 must be a duration such as '90s'"),
    (". --budget 20h --watch", "--budget and --watch cannot be combined"),
    (". --keep-originals 3", "--keep-originals only works with --replace"),
    (". --keep-originals 0", "--keep-originals only works with --replace"),
    (". --no-wait --watch", "--no-wait and --watch cannot be combined"),
    (". --no-wait --workers 1", "--no-wait and --workers cannot be combined"),
    (". --dry-run --watch", "--dry-run and --watch cannot be combined"),
    (". --collect-only --watch", "--collect-only and --watch cannot be combined"),
    (". --collect-only --include x", "--collect-only and --include cannot be combined"),
    (". --collect-only --replace", "--collect-only and --replace cannot be combined"),
    (". --quiet --verbose", "--quiet and --verbose cannot be combined"),
    (". --profile hevk", "Did you mean 'hevc'?"),
    (". --quality good --no-wait", "--quality and --no-wait cannot be combined"),
    (". --quality fine", "video.quality must be a number, got 'fine'"),
    (". --quality 100", "video.quality must be at most 99"),
    (". --quality good --profile hls", "video.quality is for files that software encodes"),
    ("films --quality good", "are in its settings"),
    (". --output .", "contains the ingested folder"),
    ("films --replace", "are in its settings"),
    ("films --order saving", "are in its settings"),
    ("films --profile hevc", "are in its settings"),
    ("films --exclude a", "are in its settings"),
    ("films --keep-originals 0", "are in its settings"),
    ("--no-wait", "--no-wait ignores the schedule or budget of tv"),
]


@pytest.mark.usefixtures("libraries")
def test_conflicting_options_are_refused_in_one_sentence(hevcq):
    for words, said in SENSELESS:
        ran = hevcq("ingest", *words.split())

        assert (ran.code, ran.out) == (ExitCode.USAGE, ""), words
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1


def test_without_a_library_a_path_is_asked_for(hevcq):
    ran = hevcq("ingest")

    assert ran.code == ExitCode.USAGE
    assert "hevcq libraries add PATH" in ran.err


@pytest.mark.media
@pytest.mark.usefixtures("libraries")
def test_one_table_tells_of_all_libraries(hevcq, tmp_path):
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no video at all")
    with (tmp_path / "own.toml").open("a") as file:
        file.write('[[libraries]]\nname = "gone"\npath = "gone"\n')

    ran = hevcq("ingest")

    assert ran.code == ExitCode.SOME_FAILED
    assert "broken.mp4" in ran.out
    assert "No such file or folder." in ran.out
    assert hevcq("ingest", "tv").code == ExitCode.OK


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("mount_point", [True, False])
def test_a_folder_that_goes_away_during_the_scan_is_one_sentence(
    hevcq, tmp_path, monkeypatch, *, mount_point
):
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (media / name).write_bytes(b"a video")

    def unmounted(found: Iterable[object], *args: object, **options: Any) -> object:
        found = list(found)
        media.rename(tmp_path / "elsewhere")
        if mount_point:
            media.mkdir()
        return probe_files(found, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("hevcq.running.folder.probe_files", unmounted)
    ran = hevcq("ingest", media, "--quiet")

    assert ran.code == ExitCode.UNAVAILABLE
    (line,) = ran.err.splitlines()
    assert line.startswith(f"hevcq: The folder {media} went away during the scan; nothing was")
