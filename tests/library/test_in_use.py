"""One data folder at a time works in a library; processes of one data folder share it."""

import threading
from pathlib import Path

import pytest

from hevcq.errors import Unavailable
from hevcq.library.lock import in_use


def test_a_second_data_folder_is_kept_out_and_told_of_the_first(tmp_path: Path) -> None:
    with (
        in_use([tmp_path], "one", "nas:/data"),
        pytest.raises(Unavailable, match=r"another data folder \(nas:/data\)"),
        in_use([tmp_path], "two", "nas:/other"),
    ):
        pass
    with in_use([tmp_path], "two", "nas:/other"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_data_folder_share_a_library_until_the_last_ends(tmp_path: Path) -> None:
    first, second = (in_use([tmp_path], "one", "nas:/data") for _ in range(2))
    with second:
        with first:
            pass
        with pytest.raises(Unavailable), in_use([tmp_path], "two", "nas:/other"):
            pass
    with in_use([tmp_path], "two", "nas:/other"):
        pass


@pytest.mark.parametrize("held", ["", "films"])
def test_a_library_inside_another_is_one_with_it(tmp_path: Path, held: str) -> None:
    (tmp_path / ".hevcq").mkdir()
    inner = tmp_path / "films"
    inner.mkdir()
    other = inner if not held else tmp_path
    with (
        in_use([tmp_path / held], "one", "a"),
        pytest.raises(Unavailable),
        in_use([other], "two", "b"),
    ):
        pass


def test_processes_of_one_data_folder_that_start_together_all_get_in(tmp_path: Path) -> None:
    (tmp_path / ".hevcq").mkdir()
    (tmp_path / ".hevcq/in-use").write_text("two nas:/older")
    errors: list[Exception] = []
    together = threading.Barrier(8)

    def enter() -> None:
        together.wait()
        try:
            with in_use([tmp_path], "one", "nas:/data"):
                together.wait()
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
