"""`hevcq ingest` without a path, with a library's name, and with a path of that name."""

from pathlib import Path

import pytest

from cli.conftest import Run
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.ingest_options import Options, named_libraries
from hevcq.errors import UsageError
from hevcq.settings.libraries import Library

TV = Library(name="tv", path=Path("/m/tv"), place="replace", keep_originals=3)
FILMS = Library(name="Films", path=Path("/m/films"), watch=False, schedule=())
BOTH = (TV, FILMS)


def test_nothing_named_means_all_and_a_name_means_one() -> None:
    assert named_libraries((), BOTH) == (BOTH, ())
    assert named_libraries(("films",), BOTH) == ((FILMS,), ())
    assert named_libraries(("tv", "TV"), BOTH) == ((TV,), ())


def test_a_folder_of_the_same_name_is_written_as_a_path() -> None:
    assert named_libraries(("./tv",), BOTH) == ((), (Path("tv"),))
    assert named_libraries(("tv2", "/m/tv"), BOTH) == ((), (Path("tv2"), Path("/m/tv")))
    with pytest.raises(UsageError, match=r"not both; a folder .* is \./NAME"):
        named_libraries(("tv", "other"), BOTH)


def test_a_library_asks_for_what_its_settings_say() -> None:
    tv, films = Options(libraries=BOTH, watch=True).requests()

    assert (tv.roots, tv.replace, tv.keep_days, tv.watch) == ((Path("/m/tv"),), True, 3, True)
    assert (films.replace, films.keep_days, films.watch) == (False, None, False)
    assert films.library is FILMS


def test_the_order_of_a_plain_ingest_is_asked_for_by_the_command() -> None:
    assert Options(paths=(Path("/m"),), order="saving").request().largest_saving_first
    assert not Options(paths=(Path("/m"),)).request().largest_saving_first


@pytest.mark.parametrize(
    "options",
    [
        {"replace": True},
        {"order": "saving"},
        {"profiles": ("hevc",)},
        {"exclude": ("a",)},
        {"keep_originals": 0.0},
    ],
)
def test_options_that_a_library_says_itself_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="is in its settings"):
        Options(libraries=BOTH, **options).check()  # type: ignore[arg-type]


def test_a_budget_cannot_be_kept_by_who_only_queues() -> None:
    bound = TV.model_copy(update={"max_hours_per_day": 2.0})

    with pytest.raises(UsageError, match="--no-wait cannot keep the schedule or budget of tv"):
        Options(libraries=(bound, FILMS), no_wait=True).check()


def test_without_a_library_a_path_is_asked_for(hevcq: Run) -> None:
    ran = hevcq("ingest")

    assert ran.code == ExitCode.USAGE
    assert "hevcq libraries add PATH" in ran.err


@pytest.mark.media
def test_one_table_tells_of_all_libraries(
    hevcq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tv", "films"):
        (tmp_path / name).mkdir()
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "gone.toml").write_text(
        "".join(f'[[libraries]]\nname = "{n}"\npath = "{n}"\n' for n in ("tv", "films", "gone"))
    )
    monkeypatch.setenv("HEVCQ_CONFIG", str(tmp_path / "gone.toml"))

    ran = hevcq("ingest")

    assert ran.code == ExitCode.SOME_FAILED
    assert "broken.mp4" in ran.out
    assert "No such file or folder." in ran.out
    assert hevcq("ingest", "tv").code == ExitCode.OK
