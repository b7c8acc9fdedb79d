"""Check a source for damage before it is encoded.

A damaged source may encode without an error, and every comparison of the output with it passes, so
damage must be found here. The default check demuxes and decodes the sound, which is cheap, and which
the encode only copies; `decode` also decodes the picture. By default corrupt bytes inside intact
packets of the picture are found by the encode itself, which runs with -xerror, and by gate G1 in its
error lines.

The edit lists of an MP4 or MOV may hide media that no player shows and no encode keeps. Ordinary ones
hide very little: encoder delay of the audio, and pictures before a cut that decoding needs. Ones that hide
more, and leave all tracks equally long, are a cut without re-encoding: what they hide is left out with a
notice, and gate G5 proves that every frame that is shown is there. An edit list that cuts one track and
not the others is more likely damage, and is refused.
"""

import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from hevcq.domain.formats import Container
from hevcq.domain.media.facts import Measurement, MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.video import (
    captions_become_text,
    evening_notice,
    film_rate,
    inverts_telecine,
)
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import AudioPolicy, Preflight
from hevcq.errors import INTACT_COPY, MediaRefused, SourceDamaged, Unavailable
from hevcq.ffmpeg.inputs import (
    FINE_TICK,
    KEYED,
    NETWORK_PREFIXES,
    FfmpegTools,
    display_name,
    input_options,
    is_url,
    parse_fields,
    with_read_access,
)
from hevcq.ffmpeg.inspect.damage import index_damage, missing_end, require_one_video, time_problem
from hevcq.ffmpeg.inspect.measure import EVEN_AUDIO_CODECS, LIMITS, display_span, measure
from hevcq.ffmpeg.inspect.recording import transport_damage
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.ffmpeg.run.messages import damaged, decode_errors, message_text

_HOLD_DOLBY = frozenset({Container.SOURCE, Container.MP4, Container.MKV})
_FIRST_PACKETS = ("-read_intervals", "%+#32")
"""Twice as many as a decoder may hold back before it shows the first picture."""
MAX_RETIMED = 32
"""Pictures whose times are mended: of more it is not the packing that is wrong."""
RAGGED = frozenset({"mpegts", "mpeg"})
"""Containers of recordings, which begin and end inside a unit: their sound is decoded with the result."""


def preflight(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    profile: Profile,
    stop: threading.Event,
    looked: Measurement | None = None,
) -> Measurement:
    """Check the source as the profile asks, and return its measurement, which `look` may have made.

    Its notices say what will be left out or changed. Raises SourceDamaged with the evidence,
    MediaRefused for what cannot be encoded truly, or Unavailable if the network failed.
    """
    require_one_video(location, info)
    measured = looked or measure(tools, location, info, stop)
    if profile.gates.preflight is not Preflight.OFF:
        _judge(location, info, measured, stop)
        maps = _to_decode(info, profile, heard=looked is not None)
        if maps:
            _judge_lines(location, decode_errors_of(tools, location, profile, stop, maps))
    _require_shapes(tools, location, info, stop)
    notices = [
        *hidden_media(location, info, measured),
        *_evened(info, measured, profile),
    ]
    measured = _with_pictures(tools, location, info, measured, stop)
    found = dict[str, object]()
    captioned = _captioned(info, profile)
    if captioned is not None:
        from hevcq.ffmpeg.inspect.texts import CaptionedVideo, find_caption_channels

        video = CaptionedVideo(location, info, captioned.index)
        found["captions"] = channels = find_caption_channels(tools, video, stop)
        notices += [] if channels else ["Its closed captions hold no text."]
    if profile.video.crop == "auto":
        from hevcq.ffmpeg.inspect.bars_and_loudness import find_bars

        found["bars"], said = find_bars(tools, location, info, profile, stop)
        notices += filter(None, [said])
    if profile.audio.loudness is not None:
        from hevcq.ffmpeg.inspect.bars_and_loudness import measure_source_loudness

        found["loudness"] = tuple(measure_source_loudness(tools, location, info, profile, stop))
    found["changing"] = tuple(_changing_sounds(tools, location, info, profile, stop))
    require_even_film(location, info, measured, profile)
    return measured.model_copy(update={**found, "notices": (*measured.notices, *notices)})


def require_even_film(
    location: str, info: MediaInfo, measured: Measurement, profile: Profile
) -> None:
    """Raise MediaRefused if a telecine is to be inverted whose frames are shown at uneven times.

    The original frames are put at even times, which would take the sound out of step.
    """
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        if stream.video is None or track is None or not inverts_telecine(profile, stream.video):
            continue
        frame, first = 4 / (5 * Fraction(film_rate(stream.video)) * stream.tick), track.times[:1]
        allowed = max(frame / 4, Fraction(2))
        shown = (time - first[0] - number * frame for number, time in enumerate(track.times))
        if not first or any(abs(late) > allowed for late in shown):
            raise MediaRefused(
                f"{display_name(location)}: its frames are shown at uneven times, so the original ones of"
                " its telecine cannot be restored.",
                remedy="Set video.invert_telecine to false in the profile to deinterlace it.",
            )


def _captioned(info: MediaInfo, profile: Profile) -> Stream | None:
    """Return the video whose captions are to become text, or None."""
    videos = (s for s in info.of_kind(StreamKind.VIDEO) if not s.has_no_picture)
    main = next(videos, None)
    if main is None or main.video is None or profile.container is Container.HLS:
        return None
    return main if captions_become_text(profile, main.video) else None


def _with_pictures(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    measured: Measurement,
    stop: threading.Event,
) -> Measurement:
    """Count the pictures by decoding where some packets may show none.

    DivX and Xvid store a dropped picture as a packet that says "not coded", and those that follow two
    pictures in one packet (packed B-frames) alike; which of them hold no picture only a decoder knows.
    ffmpeg's decoder of MPEG-2 forgets the last picture before a change of size or aspect; Matroska has
    one aspect for all of them.
    """
    tracks, notices = list(measured.tracks), list(measured.notices)
    for place, track in enumerate(tracks):
        stream = next((s for s in info.streams if s.index == track.index), None)
        if stream is None or stream.video is None:
            continue
        packed = stream.codec == "mpeg4" and track.tiny > 0
        changes = 0
        if stream.codec == "mpeg2video" and (
            stream.video.becomes or "matroska" in info.format_name
        ):
            changes = _shape_changes(tools, location, stream, stop)
        if not (packed or changes):
            if track.kind is StreamKind.VIDEO and not track.times and info.format_name == "avi":
                tracks[place] = _shown_later(tools, location, stream, track, stop)
            continue
        times = _decoded_pictures(tools, location, track.index, stop)[0]
        shown, found = len(times), dict[str, object]()
        retimed = tuple(_retimed(track.times, times)) if packed else ()
        if 0 < len(retimed) <= MAX_RETIMED:
            found["retimed"] = retimed
        most = track.tiny if packed else changes
        if track.packets - most <= shown < track.packets:
            found["packets"] = shown
            if changes:
                lost = track.packets - shown
                notices.append(
                    f"Stream {track.index}: {lost} of {track.packets} pictures, the last before a change"
                    " of size or aspect, cannot be decoded by ffmpeg and are left out."
                )
        if shown and track.packets - most <= shown <= track.packets and not track.times:
            found |= display_span(times, stream)
        tracks[place] = track.model_copy(update=found)
    return measured.model_copy(update={"tracks": tuple(tracks), "notices": tuple(notices)})


def _shape_changes(tools: FfmpegTools, location: str, stream: Stream, stop: threading.Event) -> int:
    """Return how often size or aspect change by MPEG-2's sequence headers, without decoding.

    0 where a size changes that the probe has not seen.
    """
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", *input_options(location), "-map", f"0:{stream.index}",
        "-c", "copy", "-bsf", "filter_units=pass_types=0xB3", "-f", "rawvideo", "pipe:1",
    ]  # fmt: skip
    done = run_child(argv, stop=stop, limits=with_read_access(LIMITS, tools, location))
    shapes = [header[:4] for header in done.stdout.split(b"\0\0\1\xb3")[1:]]
    if stream.video is None or (len({s[:3] for s in shapes}) > 1 and not stream.video.becomes):
        return 0
    return sum(one != other for one, other in pairwise(shapes))


def _retimed(times: Sequence[int], shown: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Yield the pictures that the decoder gives another time than the container, with its time.

    A packed packet has the time of the picture behind its first one. The decoder believes times until one
    goes backwards, and then the order of the packets; so only the first such picture gets a wrong one.
    """
    if len(times) == len(shown) and times[:1] == tuple(shown[:1]):
        for number, (right, found) in enumerate(zip(times, shown, strict=True)):
            if right != found:
                yield number, right - times[0]


def _shown_later(
    tools: FfmpegTools, location: str, stream: Stream, track: TrackMeasure, stop: threading.Event
) -> TrackMeasure:
    """Return the track as it is shown: AVI stores decoding times, and reordered pictures come later."""
    times = _decoded_pictures(tools, location, track.index, stop, *_FIRST_PACKETS)[0]
    known = (track.first_pts_s, track.last_pts_s, track.end_s)
    if not times or times[0] is None or None in known:
        return track
    late = float(times[0] * stream.tick) - (track.first_pts_s or 0.0)
    names = ("first_pts_s", "last_pts_s", "end_s")
    return track.model_copy(
        update={n: (s or 0.0) + late for n, s in zip(names, known, strict=True)}
    )


def _decoded_pictures(
    tools: FfmpegTools, location: str, index: int, stop: threading.Event, *interval: str
) -> tuple[list[int | None], list[str]]:
    """Return the times of the pictures that a decoder makes, in ticks, and each new size and aspect.

    There are none if that is unknown.
    """
    argv = [
        tools.ffprobe, "-v", "error", "-select_streams", str(index), *interval, "-show_entries",
        "frame=best_effort_timestamp,width,height,sample_aspect_ratio", "-of", KEYED, *input_options(location),
    ]  # fmt: skip
    shapes: list[str] = []
    times: list[int | None] = []

    def on_line(line: str) -> None:
        fields = parse_fields(line)
        time = fields.get("best_effort_timestamp", "")
        wide, high, aspect = (fields.get(n, "") for n in ("width", "height", "sample_aspect_ratio"))
        shape = f"{wide}x{high} {'1:1' if aspect in {'', 'N/A', '0:1'} else aspect}"
        if wide.isdigit():
            times.append(int(time) if time.lstrip("-").isdigit() else None)
            if shapes[-1:] != [shape]:
                shapes.append(shape)

    limits = with_read_access(LIMITS, tools, location)
    done = run_child(argv, stop=stop, limits=limits, on_line=on_line)
    return (times, shapes) if done.returncode == 0 else ([], [])


def _require_shapes(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> None:
    """Refuse pictures whose aspect changes unless their size tells it, where ffmpeg loses that of each."""
    for stream in info.of_kind(StreamKind.VIDEO):
        known = stream.video.shapes if stream.video is not None and stream.video.one_aspect else ()
        told = len({shape.partition(" ")[0] for shape in known}) == len(known)
        if told and known:
            seen = _decoded_pictures(tools, location, stream.index, stop)[1]
            told = bool(seen) and set(seen) <= set(known)
        if not told:
            raise MediaRefused(
                f"{display_name(location)}: the shape of its picture changes on the way, and this ffmpeg"
                " would show all of it in one.",
                remedy="Encode it where ffmpeg is older than 7, or cut it where the shape changes.",
            )


def _changing_sounds(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> Iterator[tuple[int, int, str]]:
    """Yield the sounds of a broadcast whose channels change, with the most channels and their layout.

    AC-3 that is copied is not asked.
    """
    copied = profile.audio.policy is AudioPolicy.COPY and profile.container in _HOLD_DOLBY
    codecs = {"aac"} if copied else {"aac", "ac3", "eac3"}
    sounds = info.of_kind(StreamKind.AUDIO) if info.format_name == "mpegts" else ()
    for stream in (each for each in sounds if each.codec in codecs):
        lines = set[str]()
        argv = [tools.ffprobe, "-v", "error", "-select_streams", str(stream.index), "-show_entries",
                "frame=channels,channel_layout", "-of", KEYED, *input_options(location)]  # fmt: skip
        run_child(
            argv, stop=stop, limits=with_read_access(LIMITS, tools, location), on_line=lines.add
        )
        frames = [each for each in map(parse_fields, lines) if each.get("channels", "").isdigit()]
        layouts = {int(each["channels"]): each.get("channel_layout", "") for each in frames}
        if len(layouts) > 1:
            yield stream.index, max(layouts), layouts[max(layouts)]


def _evened(info: MediaInfo, measured: Measurement, profile: Profile) -> Iterator[str]:
    """Yield the notice of a video whose times are uneven, where the container has one frame rate."""
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        if track is not None and (found := evening_notice(profile, stream, track)):
            yield found


def _judge(location: str, info: MediaInfo, measured: Measurement, stop: threading.Event) -> None:
    _judge_lines(location, measured.errors)
    videos = sum(track.kind is StreamKind.VIDEO and track.packets > 0 for track in measured.tracks)
    complaint = (
        missing_end(info, measured)
        or time_problem(info, measured)
        or index_damage(location, info, measured)
        or (transport_damage(location, videos, stop) if info.format_name == "mpegts" else "")
    )
    if complaint:
        raise SourceDamaged(
            f"{display_name(location)} is damaged: {complaint}.", remedy=INTACT_COPY
        )


def _to_decode(info: MediaInfo, profile: Profile, *, heard: bool) -> tuple[str, ...]:
    """Return the options that map what is decoded; `heard` says that the sound was, without a complaint."""
    whole = profile.gates.preflight is Preflight.DECODE
    if not whole and (heard or RAGGED.intersection(info.format_name.split(","))):
        return ()
    sounds = (s.index for s in info.of_kind(StreamKind.AUDIO) if s.decodable)
    maps = tuple(word for index in sounds for word in ("-map", f"0:{index}"))
    return ("-map", "0:v?", *maps) if whole else maps


def _judge_lines(location: str, lines: tuple[str, ...]) -> None:
    if not lines:
        return
    if is_url(location) and any(line.startswith(NETWORK_PREFIXES) for line in lines):
        raise Unavailable(
            f"{display_name(location)} could not be read to its end: {message_text(lines[0])}."
        )
    raise damaged(location, lines[0], len(lines) - 1)


def decode_errors_of(
    tools: FfmpegTools,
    location: str,
    profile: Profile,
    stop: threading.Event,
    maps: tuple[str, ...],
) -> tuple[str, ...]:
    """Decode the mapped streams of a source; return the error lines that are not known as harmless."""
    # The ticks are of the video only: see `decode_problems`.
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", *input_options(location),
        *maps, "-fps_mode", "passthrough", "-enc_time_base:v", FINE_TICK, "-f", "null", "-",
    ]  # fmt: skip
    limits = with_read_access(limits_of(profile.bounds), tools, location)
    done = run_child(argv, stop=stop, limits=limits, deadline_s=profile.queue.max_job_s)
    return decode_errors(done.stderr, done.returncode)


MAX_HIDDEN_S = 0.5
"""Seconds of a track that may be hidden. On the sample clips it is 0.05 s at most."""
MAX_APART_S = 1.0
"""Seconds by which the ends of tracks that were cut together may differ: they are cut at packets."""
MAX_LEAD_IN_S = 10.0
"""Seconds that may be read only for decoding: x264's longest group of pictures at 25 fps."""


def hidden_media(location: str, info: MediaInfo, measured: Measurement) -> Iterator[str]:
    """Yield a sentence for each track of which an edit list hides much.

    Raises MediaRefused if one track is cut and the others are not.
    """
    for stream in info.streams if info.format_name.startswith("mov,") else ():
        track = measured.track(stream.index)
        hidden = 0.0 if track is None else edit_list_hidden_s(stream, track)
        if hidden and not end_together(info, measured):
            raise MediaRefused(
                f"{display_name(location)}: an edit list hides {hidden:.1f} s of {stream.kind.value}"
                f" stream {stream.index} and leaves the tracks of unequal length, as damage would.",
                remedy="If it plays as it should, copy it with its edit lists applied"
                " (ffmpeg -i FILE -map 0 -c copy NEW.mkv) and encode the copy.",
            )
        if hidden:
            yield (
                f"Stream {stream.index}: {hidden:.1f} s of {stream.kind.value} that the file's edit list"
                " hides from every player are left out."
            )


def end_together(info: MediaInfo, measured: Measurement) -> bool:
    """Whether the shown parts of picture and sound end together, and where the file says it ends."""
    ends = [
        track.end_s
        for track in measured.tracks
        if track.kind in {StreamKind.VIDEO, StreamKind.AUDIO} and track.end_s is not None
    ]
    if info.duration_s is not None:
        ends.append(info.duration_s + (info.start_s or 0.0))
    return bool(ends) and max(ends) - min(ends) <= MAX_APART_S


def edit_list_hidden_s(stream: Stream, track: TrackMeasure) -> float:
    """Return the seconds of a track that its index names and no packet shows; 0 within the ordinary limits."""
    if stream.frames is None or not track.packets:
        return 0.0
    shown_s = (track.end_s or 0.0) - (track.first_pts_s or 0.0)
    missing, lead_in = 0.0, track.discarded * shown_s / track.packets
    if stream.kind is StreamKind.VIDEO or stream.codec in EVEN_AUDIO_CODECS:
        lost = max(0, stream.frames - track.packets - track.discarded)
        missing = lost * shown_s / track.packets
    elif stream.audio is not None and stream.codec.startswith("pcm_"):
        # The index of PCM counts samples, of which a packet holds many.
        missing = stream.frames / max(1, stream.audio.sample_rate) - shown_s
    return missing + lead_in if missing > MAX_HIDDEN_S or lead_in > MAX_LEAD_IN_S else 0.0
