"""Check a source for damage before it is encoded.

A damaged source may encode without an error, and every comparison of the output with it passes, so damage must be
found here. The default check reads all packets, and decodes the sound: that is cheap, and the encode may only copy
it. `decode` also decodes the picture. Otherwise the encode itself finds corrupt bytes inside intact packets of the
picture: it runs with -xerror, and gate G1 reads its error lines.

The edit lists of an MP4 or MOV may hide media that no player shows and no encode keeps. Ordinary ones hide very
little: encoder delay of the audio, and pictures before a cut that decoding needs. An edit list that hides more and
leaves all tracks equally long is a cut without re-encoding: the hidden part is left out with a notice, and gate G5
proves that every displayed frame is there. An edit list that cuts only one track is more likely damage, and is
refused.
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
from hevcq.ffmpeg.run.messages import damage_error, decode_errors, message_text

_DOLBY_CONTAINERS = frozenset({Container.SOURCE, Container.MP4, Container.MKV})
"""Containers into which AC-3 and E-AC-3 can be copied."""
_FIRST_PACKETS = ("-read_intervals", "%+#32")
"""Twice as many packets as a decoder may hold back before it returns the first picture."""
MAX_CORRECTED_TIMES = 32
"""Most pictures whose times are corrected; if more are wrong, packed B-frames are not the cause."""
RAGGED = frozenset({"mpegts", "mpeg"})
"""Containers of recordings, which begin and end inside a unit, so gate G4 decodes their sound instead."""


def preflight(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    profile: Profile,
    stop: threading.Event,
    looked: Measurement | None = None,
) -> Measurement:
    """Check the source as the profile asks; return its measurement, which is `looked` if that is given.

    Its notices say what will be left out or changed. Raises SourceDamaged with the evidence, MediaRefused if the
    source cannot be encoded faithfully, or Unavailable if the network failed.
    """
    require_one_video(location, info)
    measured = looked or measure(tools, location, info, stop)
    if profile.gates.preflight is not Preflight.OFF:
        _require_undamaged(location, info, measured, stop)
        maps = _streams_to_decode(info, profile, sound_decoded=looked is not None)
        if maps:
            errors = decode_errors_of(tools, location, profile, stop, maps)
            _require_no_errors(location, errors)
    _require_known_shapes(tools, location, info, stop)
    notices = [
        *hidden_media(location, info, measured),
        *_even_rate_notices(info, measured, profile),
    ]
    measured = _with_counted_pictures(tools, location, info, measured, stop)
    facts = dict[str, object]()
    captioned = _captioned_video(info, profile)
    if captioned is not None:
        from hevcq.ffmpeg.inspect.texts import CaptionedVideo, find_caption_channels

        video = CaptionedVideo(location, info, captioned.index)
        facts["captions"] = channels = find_caption_channels(tools, video, stop)
        notices += [] if channels else ["Its closed captions hold no text."]
    if profile.video.crop == "auto":
        from hevcq.ffmpeg.inspect.bars_and_loudness import find_bars

        facts["bars"], notice = find_bars(tools, location, info, profile, stop)
        notices += filter(None, [notice])
    if profile.audio.loudness is not None:
        from hevcq.ffmpeg.inspect.bars_and_loudness import measure_source_loudness

        facts["loudness"] = tuple(measure_source_loudness(tools, location, info, profile, stop))
    facts["changing"] = tuple(_changing_channels(tools, location, info, profile, stop))
    require_even_film(location, info, measured, profile)
    return measured.model_copy(update={**facts, "notices": (*measured.notices, *notices)})


def require_even_film(
    location: str, info: MediaInfo, measured: Measurement, profile: Profile
) -> None:
    """Raise MediaRefused if the profile inverts a telecine whose frames are shown at uneven times.

    The restored film frames get even times, which would take the sound out of step.
    """
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        if stream.video is None or track is None or not inverts_telecine(profile, stream.video):
            continue
        frame, first = 4 / (5 * Fraction(film_rate(stream.video)) * stream.tick), track.times[:1]
        tolerance = max(frame / 4, Fraction(2))
        delays = (time - first[0] - number * frame for number, time in enumerate(track.times))
        if not first or any(abs(delay) > tolerance for delay in delays):
            raise MediaRefused(
                f"{display_name(location)}: its frames are shown at uneven times, so the original ones of"
                " its telecine cannot be restored.",
                remedy="Set video.invert_telecine to false in the profile to deinterlace it.",
            )


def _captioned_video(info: MediaInfo, profile: Profile) -> Stream | None:
    """Return the video whose captions become text, or None."""
    videos = (s for s in info.of_kind(StreamKind.VIDEO) if not s.has_no_picture)
    main = next(videos, None)
    if main is None or main.video is None or profile.container is Container.HLS:
        return None
    return main if captions_become_text(profile, main.video) else None


def _with_counted_pictures(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    measured: Measurement,
    stop: threading.Event,
) -> Measurement:
    """Count the pictures of each video by decoding it if some packets may yield no picture.

    DivX and Xvid store a "not coded" packet for a dropped picture, and also after a packet with two pictures
    (packed B-frames). Only a decoder can tell which of these hold no picture. ffmpeg's MPEG-2 decoder loses the
    last picture before a change of size or aspect. Matroska stores one aspect, so there it may change unseen.
    """
    tracks, notices = list(measured.tracks), list(measured.notices)
    for place, track in enumerate(tracks):
        stream = next((s for s in info.streams if s.index == track.index), None)
        if stream is None or stream.video is None:
            continue
        is_packed = stream.codec == "mpeg4" and track.tiny > 0
        changes = 0
        if stream.codec == "mpeg2video" and (
            stream.video.becomes or "matroska" in info.format_name
        ):
            changes = _count_shape_changes(tools, location, stream, stop)
        if not (is_packed or changes):
            if track.kind is StreamKind.VIDEO and not track.times and info.format_name == "avi":
                tracks[place] = _with_display_times(tools, location, stream, track, stop)
            continue
        times = _decode_pictures(tools, location, track.index, stop)[0]
        shown, facts = len(times), dict[str, object]()
        retimed = tuple(_corrected_times(track.times, times)) if is_packed else ()
        if 0 < len(retimed) <= MAX_CORRECTED_TIMES:
            facts["retimed"] = retimed
        most = track.tiny if is_packed else changes
        if track.packets - most <= shown < track.packets:
            facts["packets"] = shown
            if changes:
                lost = track.packets - shown
                notices.append(
                    f"Stream {track.index}: {lost} of {track.packets} pictures, the last before a change"
                    " of size or aspect, cannot be decoded by ffmpeg and are left out."
                )
        if shown and track.packets - most <= shown <= track.packets and not track.times:
            facts |= display_span(times, stream)
        tracks[place] = track.model_copy(update=facts)
    return measured.model_copy(update={"tracks": tuple(tracks), "notices": tuple(notices)})


def _count_shape_changes(
    tools: FfmpegTools, location: str, stream: Stream, stop: threading.Event
) -> int:
    """Return how often size or aspect change in MPEG-2's sequence headers, without decoding.

    0 if the size changes and the probe has not seen that.
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


def _corrected_times(
    times: Sequence[int], decoded: Sequence[int | None]
) -> Iterator[tuple[int, int]]:
    """Yield the number and the right time of each picture to which the decoder gives a wrong time.

    `times` are the container's, `decoded` the decoder's; right times count from the first picture. A packet with
    two pictures has the time of the second. The decoder trusts such times until one goes backwards, and then
    follows the packet order; so only the first such picture gets a wrong time.
    """
    if len(times) == len(decoded) and times[:1] == tuple(decoded[:1]):
        for number, (right, own) in enumerate(zip(times, decoded, strict=True)):
            if right != own:
                yield number, right - times[0]


def _with_display_times(
    tools: FfmpegTools, location: str, stream: Stream, track: TrackMeasure, stop: threading.Event
) -> TrackMeasure:
    """Shift an AVI track's decoding times to its first picture's display time."""
    times = _decode_pictures(tools, location, track.index, stop, *_FIRST_PACKETS)[0]
    span = (track.first_pts_s, track.last_pts_s, track.end_s)
    if not times or times[0] is None or None in span:
        return track
    delay_s = float(times[0] * stream.tick) - (track.first_pts_s or 0.0)
    names = ("first_pts_s", "last_pts_s", "end_s")
    return track.model_copy(
        update={n: (s or 0.0) + delay_s for n, s in zip(names, span, strict=True)}
    )


def _decode_pictures(
    tools: FfmpegTools, location: str, index: int, stop: threading.Event, *interval: str
) -> tuple[list[int | None], list[str]]:
    """Return the decoded pictures' times, in ticks, and each new size and aspect; both empty on an error."""
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


def _require_known_shapes(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> None:
    """Raise MediaRefused if aspects change, this ffmpeg loses each picture's own, and the size does not tell it."""
    for stream in info.of_kind(StreamKind.VIDEO):
        known = stream.video.shapes if stream.video is not None and stream.video.one_aspect else ()
        size_tells = len({shape.partition(" ")[0] for shape in known}) == len(known)
        if size_tells and known:
            shapes = _decode_pictures(tools, location, stream.index, stop)[1]
            size_tells = bool(shapes) and set(shapes) <= set(known)
        if not size_tells:
            raise MediaRefused(
                f"{display_name(location)}: the shape of its picture changes on the way, and this ffmpeg"
                " would show all of it in one.",
                remedy="Encode it where ffmpeg is older than 7, or cut it where the shape changes.",
            )


def _changing_channels(
    tools: FfmpegTools, location: str, info: MediaInfo, profile: Profile, stop: threading.Event
) -> Iterator[tuple[int, int, str]]:
    """Yield index, most channels and their layout of each sound of a broadcast whose channels change.

    AC-3 and E-AC-3 that are copied are not checked.
    """
    copied = profile.audio.policy is AudioPolicy.COPY and profile.container in _DOLBY_CONTAINERS
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


def _even_rate_notices(info: MediaInfo, measured: Measurement, profile: Profile) -> Iterator[str]:
    """Yield the notice for each video with uneven times, if the target container has one frame rate."""
    for stream in info.of_kind(StreamKind.VIDEO):
        track = measured.track(stream.index)
        if track is not None and (notice := evening_notice(profile, stream, track)):
            yield notice


def _require_undamaged(
    location: str, info: MediaInfo, measured: Measurement, stop: threading.Event
) -> None:
    _require_no_errors(location, measured.errors)
    videos = sum(track.kind is StreamKind.VIDEO and track.packets > 0 for track in measured.tracks)
    damage = (
        missing_end(info, measured)
        or time_problem(info, measured)
        or index_damage(location, info, measured)
        or (transport_damage(location, videos, stop) if info.format_name == "mpegts" else "")
    )
    if damage:
        raise SourceDamaged(f"{display_name(location)} is damaged: {damage}.", remedy=INTACT_COPY)


def _streams_to_decode(
    info: MediaInfo, profile: Profile, *, sound_decoded: bool
) -> tuple[str, ...]:
    """Return the options that map the streams to decode; `sound_decoded` means that the sound was, without errors."""
    with_picture = profile.gates.preflight is Preflight.DECODE
    if not with_picture and (sound_decoded or RAGGED.intersection(info.format_name.split(","))):
        return ()
    sounds = (s.index for s in info.of_kind(StreamKind.AUDIO) if s.is_decodable)
    maps = tuple(word for index in sounds for word in ("-map", f"0:{index}"))
    return ("-map", "0:v?", *maps) if with_picture else maps


def _require_no_errors(location: str, errors: tuple[str, ...]) -> None:
    if not errors:
        return
    if is_url(location) and any(line.startswith(NETWORK_PREFIXES) for line in errors):
        raise Unavailable(
            f"{display_name(location)} could not be read to its end: {message_text(errors[0])}."
        )
    raise damage_error(location, errors[0], len(errors) - 1)


def decode_errors_of(
    tools: FfmpegTools,
    location: str,
    profile: Profile,
    stop: threading.Event,
    maps: tuple[str, ...],
) -> tuple[str, ...]:
    """Decode the mapped streams of a source; return the error lines without the known harmless ones."""
    # The fine ticks are for the video only: see `decode_problems`.
    argv = [
        tools.ffmpeg, "-v", "error", "-nostdin", *input_options(location),
        *maps, "-fps_mode", "passthrough", "-enc_time_base:v", FINE_TICK, "-f", "null", "-",
    ]  # fmt: skip
    limits = with_read_access(limits_of(profile.bounds), tools, location)
    done = run_child(argv, stop=stop, limits=limits, deadline_s=profile.queue.max_job_s)
    return decode_errors(done.stderr, done.returncode)


MAX_HIDDEN_S = 0.5
"""Seconds of a track that may be hidden without a notice. Sample clips hide at most 0.05 s."""
MAX_APART_S = 1.0
"""Seconds by which the ends of tracks that were cut together may differ, because a cut is between packets."""
MAX_LEAD_IN_S = 10.0
"""Seconds that a decoder may need before the first displayed picture: x264's longest group of pictures at 25 fps."""


def hidden_media(location: str, info: MediaInfo, measured: Measurement) -> Iterator[str]:
    """Yield a notice for each track if its edit list hides more than usual.

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
    """Whether the displayed parts of picture and sound end together, at the end that the file states."""
    ends = [
        track.end_s
        for track in measured.tracks
        if track.kind in {StreamKind.VIDEO, StreamKind.AUDIO} and track.end_s is not None
    ]
    if info.duration_s is not None:
        ends.append(info.duration_s + (info.start_s or 0.0))
    return bool(ends) and max(ends) - min(ends) <= MAX_APART_S


def edit_list_hidden_s(stream: Stream, track: TrackMeasure) -> float:
    """Return the seconds of a track that an edit list hides; 0 within the ordinary limits."""
    if stream.frames is None or not track.packets:
        return 0.0
    shown_s = (track.end_s or 0.0) - (track.first_pts_s or 0.0)
    missing, lead_in = 0.0, track.discarded * shown_s / track.packets
    if stream.kind is StreamKind.VIDEO or stream.codec in EVEN_AUDIO_CODECS:
        lost = max(0, stream.frames - track.packets - track.discarded)
        missing = lost * shown_s / track.packets
    elif stream.audio is not None and stream.codec.startswith("pcm_"):
        # The index of PCM counts samples, not packets.
        missing = stream.frames / max(1, stream.audio.sample_rate) - shown_s
    return missing + lead_in if missing > MAX_HIDDEN_S or lead_in > MAX_LEAD_IN_S else 0.0
