"""Plan an HLS ladder: its rungs by the source's displayed shorter side, its sounds and subtitles.

Pure functions over a profile with `container: hls` and the facts of a file. A rung is never larger
than the picture: a source of 720 lines gets 720, 480, 360 and 240, one of 370 gets 360 and 240.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from hevcq.domain import formats
from hevcq.domain.media import containers
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind, VideoFacts, ratio
from hevcq.domain.planning.encode_plan import (
    LOW,
    LOW_RUNG_KBPS,
    SURROUND,
    Action,
    EncodePlan,
    Ladder,
    Refuse,
    Rung,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.planning.streams import clipping_clause, drop_stream, plan_stream, refuse_stream
from hevcq.domain.planning.video import HDR_TRANSFERS, SMALLEST, shown_size, target_of
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.domain.profile_sections import (
    AudioPolicy,
    PixelFormatPolicy,
    Rungs,
    Surround,
)

SOUND_KBPS = 64
"""AAC rate of a rung's sound for each of its one or two channels."""
LOW_KBPS = 48
"""AAC rate of the mono sound for low rungs."""
SURROUND_KBPS = 384
"""Rate of an encoded 5.1 sound."""
FAST = 30.5
"""Frames per second above which a rung's largest rate is half as much again."""
USUAL_SHARE = 0.45
"""Share of its largest rate that a rung usually takes, if nothing is known about the source."""
RICH_BITS, POOR_BITS = 0.17, 1.5
"""Limits of a rung's bits per pixel: an absolute one for rich sources, and one relative to the source's
bits per pixel for poor sources. Fitted to ten clips at the shipped preset, 0.0004 to 0.2 bits a pixel."""
HEVC_BITS = 0.7
"""Size of an HEVC rung relative to the H.264 rung of the same resolution."""
MAX_RUNG_SHARE = 0.85
FASTEST, USUAL_RATE = 300, Fraction(25)
"""Frames per second above which a header states a clock instead of a rate, and the rate assumed then."""
IMAGE_BYTES, SHEET_BYTES_S = 40_000, 1500
"""Bytes of the poster, and of the storyboard for each second of video."""
SURROUND_CHANNELS = 5
"""Fewest channels of a sound that is also kept as 5.1: front, centre and surround."""
COPIED_BPS = 640_000
"""Rate assumed for a copied sound, in bit/s: AC-3's largest, and a usual one of E-AC-3."""
_SURROUND_NAMES = {Surround.AAC: "AAC", Surround.AC3: "AC-3", Surround.EAC3: "E-AC-3"}
_WIDEST = 16384
_NAMES = {VideoCodec.H264: "v", VideoCodec.HEVC: "hevc"}


def ladder_of(profile: Profile, main: Stream) -> Ladder | Refuse:
    """Return the rungs of the main video, highest first and H.264 before HEVC, or a policy's refusal."""
    if main.video is None:
        return Refuse(policy="video", detail="The video's codec is not known to ffmpeg.")
    if profile.contradiction:
        return Refuse(policy="video.crf", detail=f"{profile.contradiction}.")
    codecs = _codecs(profile, main.video)
    if isinstance(codecs, Refuse):
        return codecs
    rungs: list[Rung] = []
    for codec, table in codecs:
        for side, rate in _fitting_rungs(main.video, table).items():
            target = target_of(_rung_profile(profile, main.video, codec, side), main)
            if isinstance(target, Refuse):
                return target
            rungs.append(_rung(codec, target, rate, main.video))
    converted = profile.policies.closed_captions == "convert"
    if main.video.closed_captions and converted and not any(r.target.captions for r in rungs):
        return Refuse(
            policy="policies.closed_captions",
            detail="The picture carries closed captions, which a ladder of HEVC alone would lose; set "
            "policies.closed_captions to drop to encode without them.",
        )
    settings = profile.hls
    return Ladder(rungs=tuple(rungs), segment_s=settings.segment_s, keyframe_s=settings.keyframe_s)


def _codecs(profile: Profile, facts: VideoFacts) -> list[tuple[VideoCodec, Rungs]] | Refuse:
    """Return the codecs with their rungs. HEVC rungs keep HDR; H.264 rungs are mapped to SDR."""
    hevc = [(VideoCodec.HEVC, profile.hls.hevc_rungs)] if profile.hls.hevc else []
    if facts.colour.transfer in HDR_TRANSFERS and profile.policies.hdr == "keep":
        if not hevc:
            return Refuse(
                policy="hls.hevc",
                detail=f"The picture is HDR ({facts.colour.transfer}), which the H.264 ladder cannot "
                "show; set hls.hevc to true, or policies.hdr to convert.",
            )
        if _pixel_format(facts, VideoCodec.HEVC) is not PixelFormatPolicy.KEEP:
            return Refuse(
                policy="policies.hdr",
                detail=f"The picture is HDR in {facts.pixel_format}; players show HDR in 4:2:0 with "
                "10 bits only. Set policies.hdr to convert to map its tones.",
            )
    return [(VideoCodec.H264, profile.hls.h264_rungs), *hevc]


def _fitting_rungs(facts: VideoFacts, table: Rungs) -> Rungs:
    """Return the rungs that are not larger than the picture; if only low ones fit, add its own size."""
    side = min(shown_size(facts))
    fitting = {rung: table[rung] for rung in sorted(table, reverse=True) if rung <= side}
    usual = {rung: rate for rung, rate in table.items() if rate[1] > LOW_RUNG_KBPS} or table
    if fitting.keys().isdisjoint(usual):
        return {max(SMALLEST, int(side) // 2 * 2): usual[min(usual)], **fitting}
    return fitting


def _rung_profile(profile: Profile, facts: VideoFacts, codec: VideoCodec, side: int) -> Profile:
    """Return the profile of one rung: its shorter side is `side`, its pixels are square."""
    video = profile.video.model_copy(
        update={
            "codec": codec,
            "pixel_format": _pixel_format(facts, codec),
            "max_width": _WIDEST,
            "max_height": side,
        }
    )
    policies = profile.policies
    if codec is VideoCodec.H264:
        policies = policies.model_copy(update={"hdr": "convert"})
    return profile.model_copy(update={"video": video, "policies": policies})


def _pixel_format(facts: VideoFacts, codec: VideoCodec) -> PixelFormatPolicy:
    """Keep 4:2:0 of 8 or 10 bits in HEVC; choose 8-bit 4:2:0 otherwise, which every player shows."""
    kept = formats.PIXEL_FORMATS.get(facts.pixel_format)
    if codec is VideoCodec.HEVC and kept is not None and kept.family == "420" and kept.bits <= 10:
        return PixelFormatPolicy.KEEP
    return PixelFormatPolicy.YUV420P


def _rung(
    codec: VideoCodec, target: VideoTarget, rate: tuple[float, int], facts: VideoFacts
) -> Rung:
    fast = ratio(facts.average_rate) * target.frames_per_frame > FAST
    side = min(target.width, target.height)
    return Rung(
        name=f"{_NAMES[codec]}{side}",
        target=target,
        crf=rate[0],
        max_kbps=rate[1] * 3 // 2 if fast and rate[1] > LOW_RUNG_KBPS else rate[1],
    )


def plan_set_stream(profile: Profile, info: MediaInfo, stream: Stream) -> StreamPlan | Refuse:
    """Plan a stream besides the main video: sound becomes AAC stereo, text becomes WebVTT."""
    match stream.kind:
        case StreamKind.AUDIO:
            return _sound(profile, info, stream)
        case StreamKind.SUBTITLE if stream.codec != containers.TELETEXT:
            return plan_stream(profile, info, stream, containers.HLS)
        case StreamKind.VIDEO if profile.policies.extra_video == "keep":
            return refuse_stream(stream, "policies.extra_video", "a further video stream")
    decided = plan_stream(profile, info, stream, containers.MP4)
    if isinstance(decided, Refuse) or decided.action is Action.DROP:
        return decided
    return drop_stream(stream, f"{stream.kind.value} in {stream.codec}, which HLS cannot hold")


def _sound(profile: Profile, info: MediaInfo, stream: Stream) -> StreamPlan | Refuse:
    audio = profile.audio.model_copy(update={"policy": AudioPolicy.ENCODE, "codec": "aac"})
    as_aac = profile.model_copy(update={"audio": audio})
    decided = plan_stream(as_aac, info, stream, containers.MP4)
    if isinstance(decided, Refuse) or decided.action is Action.DROP:
        return decided
    kept = min(2, decided.channels or 2)
    kbps = SOUND_KBPS * kept
    channels = stream.audio.channels if stream.audio is not None else kept
    mixed = f" of {channels} channels" if channels > 2 else ""
    words = "stereo" if kept == 2 else "mono"
    surround, low = _surround(profile, stream), _low(profile, stream)
    groups = {SURROUND: surround, LOW: low}
    also = "" if surround is None else surround.notice
    return decided.model_copy(
        update={
            "channels": kept,
            "bit_rate": kbps * 1000,
            "also": {group: made for group, made in groups.items() if made is not None},
            "notice": f"Stream {stream.index}: audio in {stream.codec}{mixed} becomes AAC {words} at "
            f"{kbps} kbit/s{clipping_clause(stream)}{also}.",
        }
    )


def _surround(profile: Profile, stream: Stream) -> StreamPlan | None:
    """Plan a sound's 5.1 version; None if the profile wants none or the sound has too few channels."""
    codec, facts = profile.hls.surround, stream.audio
    if codec is Surround.OFF or facts is None or facts.channels < SURROUND_CHANNELS:
        return None
    # A copy of AAC would lose its priming, which edit lists state.
    may_copy = codec is not Surround.AAC and stream.codec == codec.value
    copied = may_copy and facts.channels <= 6
    notice = f", and {_SURROUND_NAMES[codec]} 5.1 at {SURROUND_KBPS} kbit/s"
    return StreamPlan(
        source_index=stream.index,
        kind=StreamKind.AUDIO,
        action=Action.COPY if copied else Action.CONVERT,
        codec=codec.value,
        encoder="copy" if copied else codec.value,
        bit_rate=None if copied else SURROUND_KBPS * 1000,
        channels=facts.channels if copied else 6,
        notice=", and is also kept as it is" if copied else notice,
    )


def _low(profile: Profile, stream: Stream) -> StreamPlan | None:
    """Plan a sound's version for low rungs; None if the profile has none."""
    if all(most > LOW_RUNG_KBPS for _, most in profile.hls.h264_rungs.values()):
        return None
    return StreamPlan(
        source_index=stream.index,
        kind=StreamKind.AUDIO,
        action=Action.CONVERT,
        codec="aac",
        encoder="aac",
        bit_rate=LOW_KBPS * 1000,
        channels=1,
    )


def expected_bytes(rung: Rung, info: MediaInfo, seconds: float | None = None) -> tuple[int, int]:
    """Return a rung's expected size, and the most that its largest rate allows, in bytes.

    Rungs of a source with few bits per pixel need few, too. `seconds` is the duration if the file
    states none.
    """
    most = int(rung.max_kbps * 125 * (info.duration_s or seconds or 0.0))
    facts = next((s.video for s in info.of_kind(StreamKind.VIDEO) if s.video is not None), None)
    if facts is None or not info.duration_s or not info.size or not facts.width * facts.height:
        return int(most * USUAL_SHARE), most
    stated = ratio(facts.average_rate)
    rate = stated if 0 < stated <= FASTEST else USUAL_RATE
    frames = float(rate) * info.duration_s
    density = info.size * 8 / (facts.width * facts.height * frames)
    bits = 1 / (1 / (POOR_BITS * density) + 1 / RICH_BITS)
    bits *= HEVC_BITS if rung.target.codec == VideoCodec.HEVC else 1
    pixels = rung.target.width * rung.target.height * frames * rung.target.frames_per_frame
    return min(most, int(bits * pixels / 8)), most


def expected_set_bytes(plan: EncodePlan, info: MediaInfo, seconds: float) -> tuple[int, int]:
    """Return a whole set's expected size with sounds and images, and the most, in bytes."""
    rungs = plan.ladder.rungs if plan.ladder is not None else ()
    usual, most = (
        sum(each) for each in zip(*(expected_bytes(r, info, seconds) for r in rungs), strict=True)
    )
    sounds = _sound_bytes(plan, seconds)
    return usual + sounds + int(IMAGE_BYTES + SHEET_BYTES_S * seconds), most + sounds


def _sound_bytes(plan: EncodePlan, seconds: float) -> int:
    tracks = [track for track in plan.kept if track.kind is StreamKind.AUDIO]
    rates = [track.bit_rate or 0 for track in tracks]
    rates += [each.bit_rate or COPIED_BPS for track in tracks for each in track.also.values()]
    return int(sum(rates) / 8 * seconds)


def rungs_worth_keeping(rates: list[tuple[str, float]]) -> Iterator[str]:
    """Yield the names of the rungs to keep; `rates` are their average rates, highest rung first.

    A switch to a rung with over MAX_RUNG_SHARE of the next higher rung's rate is useless, so only the
    lowest rung may have such a rate.
    """
    above = 0.0
    for place, (name, rate) in enumerate(rates):
        if not above or place == len(rates) - 1 or rate <= MAX_RUNG_SHARE * above:
            yield name
            above = rate


def segment_starts(times: Sequence[int], step: Fraction) -> list[int]:
    """Return the indexes of the key frames that begin segments: the first at or after each step.

    `times` and `step` are in ticks. One tick of tolerance covers rounding to a file's time scale.
    """
    border, starts = Fraction(0), []
    for index, time in enumerate(times):
        elapsed = time - times[0]
        if elapsed >= border:
            starts.append(index)
            border = ((elapsed + 1) // step + 1) * step - 1
    return starts
