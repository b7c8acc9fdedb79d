"""Detect media that the edit lists of an MP4 or MOV hide: no player shows it, and no encode keeps it.

Ordinary edit lists hide very little: encoder delay of the audio, and pictures before a cut that
decoding needs. Ones that hide more, and leave all tracks equally long, are a cut without re-encoding:
by default what they hide is left out with a notice, and gate G5 proves that every frame that is shown
is there. A profile may refuse that, because the cut could be reversed in the original. An edit list
that cuts one track and not the others is more likely damage, and is always refused.
"""

from __future__ import annotations

import threading

from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.profile import LossPolicy, Profile
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inputs import FfmpegTools, display_name
from hevcq.ffmpeg.inspect.measure import measure

MAX_HIDDEN_S = 0.5
"""Seconds of a track that may be hidden. On the sample clips it is 0.05 s at most."""
MAX_APART_S = 1.0
"""Seconds by which the ends of tracks that were cut together may differ: they are cut at packets."""
MAX_LEAD_IN_S = 10.0
"""Seconds that may be read only for decoding: x264's longest group of pictures at 25 fps."""
_IGNORE_EDIT_LISTS = ("-ignore_editlist", "1")


def hidden_media(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    measured: Measurement,
    profile: Profile,
    stop: threading.Event,
) -> tuple[str, ...]:
    """Return a sentence for each track of which an edit list hides much.

    A track whose index names more frames than are displayed is measured again without its edit
    list: a header alone proves nothing, and an audio packet may hold many samples. Raises
    MediaRefused if the profile refuses hidden media.
    """
    if not _has_edit_lists(info):
        return ()
    tracks = [(s, measured.track(s.index)) for s in info.streams]
    candidates = [(s, t) for s, t in tracks if t is not None and _may_hide_media(s, t)]
    if not candidates:
        return ()
    whole = measure(tools, location, info, stop, options=_IGNORE_EDIT_LISTS)
    notices = []
    for stream, track in candidates:
        everything = whole.track(stream.index)
        hidden = 0.0 if everything is None else edit_list_hidden_s(track, everything)
        if not hidden:
            continue
        if not cut_together(info, measured):
            raise MediaRefused(
                f"{display_name(location)}: an edit list hides {hidden:.1f} s of"
                f" {stream.kind.value} stream {stream.index} and leaves the tracks of unequal length,"
                " as damage would.",
                remedy="If it plays as it should, copy it with its edit lists applied"
                " (ffmpeg -i FILE -map 0 -c copy NEW.mkv) and encode the copy.",
            )
        if profile.policies.hidden_media is not LossPolicy.DROP:
            raise MediaRefused(
                f"{display_name(location)}: an edit list hides {hidden:.1f} s of"
                f" {stream.kind.value} stream {stream.index}, which a rendition would lose"
                " (policies.hidden_media).",
                remedy="Set policies.hidden_media to drop in the profile to encode only what is shown.",
            )
        notices.append(
            f"Stream {stream.index}: {hidden:.1f} s of {stream.kind.value} that the file's edit list"
            " hides from every player are left out."
        )
    return tuple(notices)


def cut_together(info: MediaInfo, measured: Measurement) -> bool:
    """Whether the shown parts of picture and sound end together, and where the file says it ends."""
    ends = [
        track.end_s
        for track in measured.tracks
        if track.kind in {StreamKind.VIDEO, StreamKind.AUDIO} and track.end_s is not None
    ]
    if info.duration_s is not None:
        ends.append(info.duration_s + (info.start_s or 0.0))
    return bool(ends) and max(ends) - min(ends) <= MAX_APART_S


def edit_list_hidden_s(shown: TrackMeasure, everything: TrackMeasure) -> float:
    """Return the seconds of a track that an edit list hides; 0 within the ordinary limits."""
    if everything.packets == 0 or everything.end_s is None or everything.first_pts_s is None:
        return 0.0
    packet_s = (everything.end_s - everything.first_pts_s) / everything.packets
    return _beyond_ordinary(shown, everything.packets, packet_s)


def _beyond_ordinary(shown: TrackMeasure, packets: int, packet_s: float) -> float:
    missing = max(0, packets - shown.packets - shown.discarded) * packet_s
    lead_in = shown.discarded * packet_s
    return missing + lead_in if missing > MAX_HIDDEN_S or lead_in > MAX_LEAD_IN_S else 0.0


def _has_edit_lists(info: MediaInfo) -> bool:
    return info.format_name.startswith("mov,")


def _may_hide_media(stream: Stream, track: TrackMeasure) -> bool:
    """Whether the index names more frames than are displayed, so that a second pass is needed."""
    if stream.kind not in {StreamKind.VIDEO, StreamKind.AUDIO} or stream.frames is None:
        return False
    shown_s = (track.end_s or 0.0) - (track.first_pts_s or 0.0)
    if stream.audio is not None and stream.codec.startswith("pcm_"):
        # The index of PCM counts samples, of which a packet holds many.
        return stream.frames / max(1, stream.audio.sample_rate) - shown_s > MAX_HIDDEN_S
    if track.packets == 0 or shown_s <= 0:
        return stream.frames > track.packets
    return _beyond_ordinary(track, stream.frames, shown_s / track.packets) > 0
