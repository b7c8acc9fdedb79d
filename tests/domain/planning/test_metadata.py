"""What a rendition says of its tracks, what it cannot, and what it may tell of people."""

import pytest

from hevcq.domain.media.facts import MetadataItem
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse, StreamPlan
from hevcq.domain.planning.metadata import losses, personal_names
from hevcq.domain.planning.planner import make_plan
from support.media_facts import MKV, audio, media, profile, video


def test_a_picture_that_matroska_crops_is_refused():
    plan = make_plan(profile(), media(video(cropped=True), form=MKV))

    assert isinstance(plan, Refuse)
    assert "PixelCrop" in plan.detail


@pytest.mark.parametrize(("tag", "lost"), [("pt-BR", True), ("pt", False)])
def test_a_regional_language_is_named_where_it_has_no_place(tag, lost):
    info = media(video(), audio(language="por", language_tag=tag), form=MKV)
    streams = tuple(
        StreamPlan(source_index=s.index, kind=s.kind, action="copy", position=s.index)
        for s in info.streams
    )

    assert (f"language {tag} of stream 1" in losses("ogg", info, streams)) is lost


@pytest.mark.parametrize(
    ("marks", "lost"), [(("descriptions", "visual_impaired"), False), (("descriptions",), True)]
)
def test_a_mark_is_no_loss_where_another_says_the_same(marks, lost):
    info = media(video(), audio(dispositions=marks), form=MKV)

    assert ("the mark descriptions of stream 1" in losses("matroska", info, ())) is lost


def test_boxes_are_carried_from_mp4_alone():
    """What Matroska says of its file lies in no box."""
    tags = MetadataItem(place="file", name="structured tags", size=90, digest="d")
    info = media(video(), form=MKV).model_copy(update={"metadata": (tags,)})
    plan = make_plan(profile(container="mp4"), info)

    assert isinstance(plan, EncodePlan), plan
    assert plan.losses == ("structured tags of the file",)


def test_what_a_rendition_tells_of_people_places_and_devices_is_named():
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
    assert personal_names(plan.muxer, silent, plan.streams[:1]) == (box.name,)
    nothing = silent.model_copy(update={"metadata": ()})
    assert personal_names(plan.muxer, nothing, plan.streams[:1]) == ()


def test_a_sound_that_nothing_reads_is_left_out_beside_one_that_is_read_and_then_replaces_nothing():
    found = media(video(), audio(), audio("unknown", codec_tag="apac"))

    made, dropping = (
        make_plan(profile(policies={"tracks": tracks}), found) for tracks in ("keep", "drop")
    )

    assert isinstance(made, EncodePlan)
    assert [each.source_index for each in made.kept] == [0, 1]
    assert "Stream 2 is left out: audio in Apple's spatial sound" in " ".join(made.notices)
    assert "spatial sound" in " ".join(made.losses)
    assert not dropping.losses
