"""The crop of a rendition shows the same part of the picture as the source's, whatever is done to it."""

from fractions import Fraction

import pytest

from hevcq.domain.media.facts import MetadataItem, VideoFacts
from hevcq.domain.planning.encode_plan import EncodePlan, StreamPlan
from hevcq.domain.planning.metadata import kept_crop, losses, personal
from hevcq.domain.planning.planner import make_plan
from support.media_facts import MKV, audio, media, profile, video


def planned(source, **parts) -> EncodePlan:
    plan = make_plan(profile(**parts), media(source))
    assert isinstance(plan, EncodePlan), plan
    return plan


def corners(facts: VideoFacts) -> tuple[Fraction, ...]:
    """Return the shown part's corners as shares of the picture as it is displayed."""
    left, top, right, bottom = facts.edges
    x0, y0 = left / facts.width, top / facts.height
    x1, y1 = 1 - right / facts.width, 1 - bottom / facts.height
    for _ in range(facts.rotation // 90):  # clockwise: what was at the bottom comes to the left
        x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
    return x0, y0, x1, y1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("box", [None, 720])
def test_a_crop_is_turned_and_scaled_as_the_picture_is(rotation: int, box: int | None) -> None:
    source = video(1920, 1080, crop="240,120,180,60", rotation=rotation)
    plan = planned(source, container="mp4", video={"max_width": box, "max_height": box})

    crop = kept_crop(plan.muxer, plan.main_video, source)

    target = plan.video
    made = VideoFacts(
        width=target.width, height=target.height, pixel_format="", bit_depth=8, crop=crop
    )
    assert target.width != 1920 if box or rotation % 180 else target.width == 1920
    assert source.video is not None
    assert corners(made) == corners(source.video)


def test_the_edge_that_even_sizes_need_is_cut_off_too() -> None:
    source = video(1919, 1079, crop="1,1,1,1")
    plan = planned(source, container="mp4")

    assert (plan.video.pad_right, plan.video.pad_bottom) == (1, 1)
    assert kept_crop(plan.muxer, plan.main_video, source) == "1,1,2,2"


def test_matroska_shows_up_to_a_pixel_more_never_less() -> None:
    source = video(1920, 1080, crop="8,3,9,1/2")
    plan = planned(source, container="mkv", video={"max_width": 1280, "max_height": 720})

    assert kept_crop(plan.muxer, plan.main_video, source) == "5,2,6,0"


def test_odd_fractions_of_a_pixel_fit_into_32_bits() -> None:
    source = video(1919, 1079, crop="8000000001/4000000000,1/3,7/65521,1/7")
    plan = planned(source, container="mp4", video={"max_width": 1280, "max_height": 720})

    crop = kept_crop(plan.muxer, plan.main_video, source)

    left, top, right, bottom = map(Fraction, crop.split(","))
    sums = [left + right, (left - right) / 2, top + bottom, (top - bottom) / 2]
    assert all(max(abs(s.numerator), s.denominator) < 2**31 for s in sums)
    assert float(left) == pytest.approx(2 * plan.video.width / 1919, abs=1 / 180)


@pytest.mark.parametrize("crop", ["700,0,700,0", "0,4611686018427387904,0,0"])
def test_a_crop_of_more_than_ffmpegs_picture_is_named(crop: str) -> None:
    for container in ("mp4", "mkv"):
        assert planned(video(640, 480, crop=crop), container=container).losses == (
            "crop of the picture of stream 0",
        )


@pytest.mark.parametrize(("facts", "container"), [({"mirrored": True}, "mp4"), ({}, "avi")])
def test_a_crop_that_cannot_be_carried_is_named(facts: dict, container: str) -> None:
    source = video(640, 480, crop="8,0,8,0", **facts)
    changes = {"video": {"codec": "mpeg4"}} if container == "avi" else {}
    plan = make_plan(profile(container=container, **changes), media(source))

    assert isinstance(plan, EncodePlan), plan
    assert "crop of the picture of stream 0" in plan.losses


@pytest.mark.parametrize(("tag", "lost"), [("pt-BR", True), ("pt", False)])
def test_a_regional_language_is_named_where_it_has_no_place(tag: str, lost: bool) -> None:
    info = media(video(), audio(language="por", language_tag=tag), form=MKV)
    streams = tuple(
        StreamPlan(source_index=s.index, kind=s.kind, action="copy", position=s.index)
        for s in info.streams
    )

    assert (f"language {tag} of stream 1" in losses("webm", info, streams)) is lost


@pytest.mark.parametrize(
    ("marks", "lost"), [(("descriptions", "visual_impaired"), False), (("descriptions",), True)]
)
def test_a_mark_is_no_loss_where_another_says_the_same(marks: tuple[str, ...], lost: bool) -> None:
    info = media(video(), audio(dispositions=marks), form=MKV)

    assert ("the mark descriptions of stream 1" in losses("matroska", info, ())) is lost


def test_boxes_are_carried_from_mp4_alone() -> None:
    """What Matroska says of its file lies in no box."""
    tags = MetadataItem(place="file", name="structured tags", size=90, digest="d")
    info = media(video(), form=MKV).model_copy(update={"metadata": (tags,)})
    plan = make_plan(profile(container="mp4"), info)

    assert isinstance(plan, EncodePlan), plan
    assert plan.losses == ("structured tags of the file",)


def test_a_file_of_many_boxes_is_judged_without_comparing_each_with_each(monkeypatch) -> None:
    compared = []
    monkeypatch.setattr(
        MetadataItem, "__eq__", lambda one, other: compared.append(one) or one is other
    )
    boxes = tuple(
        MetadataItem(place="movie", name=f"b{n}", size=9, digest=str(n)) for n in range(300)
    )
    found = media(video(), form="mov,mp4,m4a,3gp,3g2,mj2", metadata=boxes)
    main = StreamPlan(source_index=0, kind=found.streams[0].kind, action="encode", position=0)

    assert losses("mp4", found, (main,)) == ()
    assert len(compared) < 5 * len(boxes)


def test_what_a_rendition_tells_of_people_places_and_devices_is_named() -> None:
    plain = {"title": "A", "ENCODER": "x", "creation_time": "2026", "major_brand": "isom"}
    told = {"com.apple.quicktime.location.ISO6709": "+48", "location-eng": "+48", "Odd": "?"}
    spoken = audio().model_copy(update={"tags": {"handler_name": "S", "comment": "ours"}})
    box = MetadataItem(place="movie", name="Samsung's data (smta)", size=9, digest="d")
    source = media(video(), spoken).model_copy(
        update={"tags": {**plain, **told}, "metadata": (box,)}
    )
    plan = make_plan(profile(container="mp4"), source)
    assert isinstance(plan, EncodePlan)
    assert plan.personal == ("comment", "location", "location-eng", "odd", box.name)
    silent = source.model_copy(update={"tags": plain, "streams": media(video()).streams})
    assert personal(plan.muxer, silent, plan.streams[:1]) == (box.name,)
    nothing = silent.model_copy(update={"metadata": ()})
    assert personal(plan.muxer, nothing, plan.streams[:1]) == ()
