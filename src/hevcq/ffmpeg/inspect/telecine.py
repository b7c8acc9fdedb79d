"""Measure the cadence of a telecined video over every frame: steady, or why it is not.

A telecine (3:2 pulldown) shows 24 frames a second as 60 fields, so that two of ten fields repeat the
one before of the same parity. Where these are at the same places from the first frame to the last,
the original frames come out of the others whole. One edit or one title that moves at 60 fields a
second breaks that, so every repeated field of the file is compared with the one it repeats, and the
frames that would come out are looked at for combs. In doubt it is interlaced video.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from fractions import Fraction
from heapq import nsmallest

from hevcq.domain.media.cadence import Cadence
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind, TrackMeasure
from hevcq.domain.planning.video import inverts_telecine
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.codecs import inverse_telecine_filter
from hevcq.ffmpeg.command.thumbnails import CELLS, HEIGHT, MEANS, RAW, WIDTH
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, reading
from hevcq.ffmpeg.process.child import stream_child
from hevcq.ffmpeg.process.limits import limits_of

RATES = (Fraction(30000, 1001), Fraction(30))
"""Frames per second of what a telecine makes of 24000/1001 and of 24."""
MAX_JITTER = Fraction(1, 4)
"""Share of a frame by which times may be off even ones: MPEG program streams and MKV round them."""
HEADS = (300, 3000, 0)
"""Frames from the first on in which the places are looked for; of black or still ones, in more; 0: all."""
MIN_CYCLES = 3
"""Cycles of five frames that must show the same places."""
CLEAR = 0.5
"""Share of the least change of a moving field that a repeated one may have in its stead."""
GAIN = 8
"""Units in an 8-bit step of change, so that what moves in a small part of the picture is not rounded off."""
MIN_CHANGE = 0.1 * GAIN
"""Mean change of a field from which it counts as moving."""
MAX_MEAN, MAX_CELL = 1.0 * GAIN, 4 * GAIN
"""Change of a repeated field that coding alone explains: in the mean, and in one of 144 cells. Above,
it may be half of what moves beside it."""
MAX_COMBED = 0.1
"""Share of the original frames that may look interlaced; of those put together wrongly it is 0.75."""
COMB_CLEAR = 1.2
"""idet's threshold for that: at its 1.04 the noise of fields that were coded in two frames looks like a comb."""
_COMBED = re.compile(r"Single frame detection: TFF:\s*(\d+) BFF:\s*(\d+) Progressive:\s*(\d+)")
RECORD = 2 * CELLS


def with_cadence(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    tracks: tuple[TrackMeasure, ...],
    profile: Profile,
    stop: threading.Event,
) -> tuple[TrackMeasure, ...]:
    """Return the measurements with the cadence of each telecined video that the profile inverts."""
    found = {track.index: track for track in tracks}
    for stream in info.of_kind(StreamKind.VIDEO):
        if stream.video is None or not inverts_telecine(profile, stream.video):
            continue
        track = found.get(stream.index)
        if track is None:
            continue
        look = _Look(tools, location, stream, profile, stop)
        cadence = look.cadence(track)
        word = "unsteady" if isinstance(cadence, str) else "cadence"
        found[stream.index] = track.model_copy(update={word: cadence})
    return tuple(found[track.index] for track in tracks)


class FieldChanges:
    """The changes of the fields of each frame against the frame before, in cells of the picture."""

    def __init__(self, cadence: Cadence | None = None) -> None:
        """Look for the places of repeated fields, or compare with those of a cadence."""
        self.frames = 1
        self.moving = 0
        self.broken: int | None = None
        self._cadence = cadence
        self._rest = b""
        self._last: deque[bytes] = deque(maxlen=5)
        self._places: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes: for each frame from the second on, cells of its top and bottom field."""
        data = self._rest + chunk
        whole = len(data) - len(data) % RECORD
        self._rest = data[whole:]
        for begin in range(0, whole, RECORD):
            self._last.append(data[begin : begin + RECORD])
            self.frames += 1
            if self._cadence is None:
                self._look_for_places()
            elif len(self._last) >= 3 and self.broken is None:
                self._compare(self._cadence, self.frames - 2)

    @property
    def places(self) -> tuple[int, int] | None:
        """The places of the repeated top and bottom field in five frames; None if they are not clear."""
        found = []
        for seen in self._places:
            place, times = next(iter(seen.most_common(1)), (0, 0))
            if times < MIN_CYCLES or times < 0.8 * seen.total():
                return None
            found.append(place)
        return None if found[0] == found[1] else (found[0], found[1])

    def _look_for_places(self) -> None:
        if (self.frames - 1) % 5 or len(self._last) < 5:
            return
        for parity, seen in enumerate(self._places):
            sums = [sum(each[parity * CELLS : (parity + 1) * CELLS]) for each in self._last]
            least, second = nsmallest(2, sums)
            if second > MIN_CHANGE * CELLS and least < CLEAR * second:
                seen[(self.frames - 5 + sums.index(least)) % 5] += 1

    def _compare(self, cadence: Cadence, frame: int) -> None:
        """Compare the fields of a frame that repeat with what changes right before and after it."""
        for parity, place in enumerate((cadence.top, cadence.bottom)):
            if frame % 5 != place:
                continue
            before, own, after = (
                each[parity * CELLS : (parity + 1) * CELLS] for each in list(self._last)[-3:]
            )
            moved = list(map(max, before, after))
            change, motion = sum(own) / CELLS, sum(moved) / CELLS
            self.moving += motion > MIN_CHANGE
            another = change > max(MAX_MEAN, CLEAR * motion)
            if another or any(map(_is_another, own, moved)):
                self.broken = frame


def _is_another(change: int, motion: int) -> bool:
    return change > MAX_CELL and change > CLEAR * motion


class _Look:
    """Looks at the fields of one video stream."""

    def __init__(
        self,
        tools: FfmpegTools,
        location: str,
        stream: Stream,
        profile: Profile,
        stop: threading.Event,
    ) -> None:
        self._tools, self._location, self._stream = tools, location, stream
        self._profile, self._stop = profile, stop

    def cadence(self, track: TrackMeasure) -> Cadence | str:
        """Return the cadence, or why the telecine is not inverted, as a clause."""
        times = even_times(track, self._stream.tick)
        if times is None:
            return "its frames are shown at uneven times"
        rate, count = times
        places = self._places()
        if places is None:
            return "its cadence is not clear"
        number = Fraction(rate)
        found = Cadence(
            top=places[0],
            bottom=places[1],
            frames=count,
            rate=f"{number.numerator}/{number.denominator}",
        )
        return self._problem(found) or found

    def _places(self) -> tuple[int, int] | None:
        for frames in HEADS:
            changes = FieldChanges()
            trim = f"trim=end_frame={frames}," if frames else ""
            self._run(f"[0:{self._stream.index}]{trim}{_CHANGES}", changes, ())
            if changes.places is not None or changes.frames < frames:
                return changes.places
        return None

    def _problem(self, cadence: Cadence) -> str:
        """Compare every repeated field, and look for combs in the frames that come out; "" if all is well."""
        changes = FieldChanges(cadence)
        graph = (
            f"[0:{self._stream.index}]split[fields][frames];[fields]{_CHANGES};"
            f"[frames]{inverse_telecine_filter(cadence)},idet=intl_thres={COMB_CLEAR}[restored]"
        )
        lines = self._run(graph, changes, ("-map", "[restored]", "-f", "null", "-"))
        if changes.broken is not None:
            at = changes.broken / Fraction(cadence.rate)
            return f"its cadence breaks at {float(at):.1f} s"
        if changes.frames != cadence.frames:
            return f"{changes.frames} frames come out of {cadence.frames}"
        seen = next((found for line in lines if (found := _COMBED.search(line))), None)
        top, bottom, plain = map(int, seen.groups()) if seen else (1, 0, 0)
        if changes.moving < MIN_CYCLES or top + bottom > MAX_COMBED * (top + bottom + plain):
            return "its frames look interlaced also without the repeated fields"
        return ""

    def _run(self, graph: str, changes: FieldChanges, more: tuple[str, ...]) -> tuple[str, ...]:
        argv = [
            self._tools.ffmpeg, "-v", "info", "-nostdin", "-nostats", "-hide_banner",
            *input_options(self._location), "-filter_complex", graph,
            "-map", "[changes]", *RAW, "pipe:1", *more,
        ]  # fmt: skip
        limits = reading(limits_of(self._profile.bounds), self._tools, self._location)
        done = stream_child(
            argv,
            stop=self._stop,
            limits=limits,
            on_chunk=changes.feed,
            deadline_s=self._profile.queue.max_job_s,
        )
        if done.returncode != 0:
            raise EncoderFailed(f"The fields of {self._location} could not be compared.")
        return done.stderr


_CELLS = f"tblend=all_mode=difference,lut=y=val*{GAIN},scale={WIDTH}:{HEIGHT}:flags={MEANS}"
_CHANGES = (
    f"extractplanes=y,format=gray,settb=1/1000,setpts=N,split[tops][bottoms];"
    f"[tops]field=top,{_CELLS}[topcells];[bottoms]field=bottom,{_CELLS}[bottomcells];"
    f"[topcells][bottomcells]vstack,format=gray[changes]"
)


def even_times(track: TrackMeasure, tick: Fraction) -> tuple[Fraction, int] | None:
    """Return the rate at which frames are shown evenly, and their number; None if they are not.

    Where each field was stored in its own packet, every second time is that of a frame.
    """
    for times in (track.times, track.times[::2]):
        for rate in RATES:
            if len(times) > 1 and _is_even(times, tick, rate):
                return rate, len(times)
    return None


def _is_even(times: tuple[int, ...], tick: Fraction, rate: Fraction) -> bool:
    # Whole numbers, as there is a time for each frame of a long video.
    frame = 1 / (rate * tick)
    scale, step = frame.denominator, frame.numerator
    allowed = max(int(MAX_JITTER * step), 2 * scale)
    first = times[0]
    return all(abs((t - first) * scale - n * step) <= allowed for n, t in enumerate(times))
