"""What every place of uploaded files promises (ports/videos.py)."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from contracts.backends import World
from hevcq.domain.job import Source
from hevcq.domain.videos import Upload, Video, make_video_id, raw_key
from hevcq.errors import BadUpload, Conflict, HevcqError, SourceChanged, SourceGone
from hevcq.ports.videos import VideoFiles

CLIP = b"a video's bytes"


def video(number: int = 1, **facts: Any) -> Video:
    upload = {"name": "A b.MOV", "size": len(CLIP), "media_type": "video/quicktime"}
    return Video(
        video_id=make_video_id(1_700_000_000.0, number.to_bytes(10)),
        owner=facts.pop("owner", "ann"),
        title="Holiday",
        created_at=1.0,
        updated_at=1.0,
        profiles=("hevc",),
        upload=Upload(**{**upload, "expires_at": 9e9, **facts}),
    )


@pytest.fixture
def files(served: World) -> VideoFiles:
    assert served.files is not None
    return served.files


def begun(files: VideoFiles, made: Video) -> Video:
    """Prepare an upload as the use case does: its record keeps what it was given."""
    upload = made.upload.model_copy(update={"multipart_id": files.prepare(made)})
    return made.model_copy(update={"upload": upload})


def done(served: World, files: VideoFiles, made: Video) -> Video:
    """Upload a whole video."""
    made = begun(files, made)
    served.upload(made, CLIP)
    found = files.complete(made)
    assert isinstance(found, Source)
    return made.model_copy(update={"source": found})


def read_raw(files: VideoFiles, made: Video) -> bytes:
    """Read the uploaded file where it is: by its path, or as whoever has the address does."""
    at = files.raw(made, name="a.mov", media_type="video/quicktime", attachment=False)
    if isinstance(at, Path):
        return at.read_bytes()
    answer = httpx2.get(at)
    if answer.status_code in {400, 403, 404}:
        raise SourceGone(answer.text)
    return answer.raise_for_status().content


def test_a_whole_upload_becomes_a_source_and_comes_back(served, files):
    made = begun(files, video())
    assert files.prepare(made) == made.upload.multipart_id, "to prepare again is harmless"
    assert files.complete(made) == 0
    assert files.way(made).kind == ("tus" if files.receives else "parts")
    served.upload(made, CLIP)

    found = files.complete(made)

    assert isinstance(found, Source)
    assert (found.key, found.size) == (raw_key(made), len(CLIP))
    assert files.complete(made) == found, "it may be repeated"
    whole = made.model_copy(update={"source": found})
    assert read_raw(files, whole) == CLIP
    served.backend.store.check(found)


def test_bytes_of_another_size_never_become_a_source(served, files):
    for number, content in enumerate((CLIP[:5], CLIP + b"and more"), 1):
        made = begun(files, video(number, size=len(CLIP)))
        try:
            served.upload(made, content)
        except AssertionError:  # refused as it came
            continue
        if len(content) < len(CLIP):
            assert files.complete(made) == len(content)
            continue
        with pytest.raises(BadUpload):
            files.complete(made)


def test_a_discarded_upload_leaves_nothing(served, files):
    made = begun(files, video())
    served.upload(made, CLIP)
    files.discard(made)
    assert files.received_bytes(made) == 0
    assert files.complete(made) == 0
    files.discard(made)
    other = video(2)
    files.discard(other)


def test_one_upload_is_not_anothers(served, files):
    one, two = begun(files, video(1)), begun(files, video(2, owner="bob"))
    served.upload(one, CLIP)
    assert files.complete(two) == 0
    files.discard(two)
    assert isinstance(files.complete(one), Source)


def test_the_uploaded_file_is_deleted_once_and_only_if_it_is_the_one(served, files):
    made = done(served, files, video())
    other = made.source.model_copy(update={"version": "1-2-3"})
    with pytest.raises((SourceChanged, SourceGone)):
        read_raw(files, made.model_copy(update={"source": other}))
    files.delete_raw(made)
    files.delete_raw(made)
    with pytest.raises(SourceGone):
        read_raw(files, made)
    with pytest.raises(HevcqError):
        served.backend.store.check(made.source)


def test_what_was_not_completed_cannot_be_read(files):
    made = begun(files, video())
    with pytest.raises(SourceGone):
        read_raw(files, made)
    files.delete_raw(made)


def test_bytes_go_where_the_way_says_and_nowhere_else(files):
    made = begun(files, video())
    if files.receives:
        with files.receive(made) as receiver:
            receiver.append(CLIP[:4])
            assert (receiver.sync(), receiver.offset) == (4, 4)
            with pytest.raises(Conflict), files.receive(made):
                pass
        assert files.received_bytes(made) == 4
        assert files.way(made).url.endswith(made.video_id)
        assert files.origins() == ()
        assert list(files.refusals("https://videos.example")) == []
    else:
        with pytest.raises(BadUpload), files.receive(made):
            pass
        assert any(files.part_url(made, 1).startswith(each) for each in files.origins())
    with pytest.raises(BadUpload):
        files.part_url(made, 2)
    assert files.received_parts(made) == {}
