"""Narrow the forecast of many videos by samples of a few seconds of some of them.

Videos are drawn by chance, large ones more often: they decide the sum, and what is true of the drawn ones
is then true of the others. It ends once the sum is known well enough, or after a time.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import Interruption, PermanentError, Stopped, Unavailable
from hevcq.ports.catalog import EncodeCost
from hevcq.ports.encoder import Encoder, EncodeRequest, Estimate, SpareFolder
from hevcq.usecases.ingest.decide import Item, with_forecast, work_ahead
from hevcq.usecases.ingest.forecast import NOTHING, Costs, Range
from hevcq.util.clock import Clock

KNOWN_WITHIN = 0.1
"""Half of the range of all sizes, as a share, at which no more is tried."""
TRIED_AGAIN = 3
"""Videos tried again at another CRF: by how much it changes a size differs less than the sizes do."""
MIN_SAMPLES, SAMPLES = 3, 12
"""Samples of one video at least, and of all together: many videos say more than much of one."""
ENOUGH = "Ctrl-C: that will do"
Estimates = Mapping[EncodeCost, Estimate]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Samples for `seconds` in all. A set `stop` only ends the sampling, unless it is `for_crf`."""

    encoder: Encoder
    scratch: SpareFolder
    clock: Clock
    stop: threading.Event
    emit: Listener
    seconds: float
    for_crf: float | None = None

    def __call__(self, items: Sequence[Item], rates: Costs) -> tuple[Sequence[Item], Costs]:
        """Return the items, and the rates by what samples of some show. Raises DiskFull or WorkerUnfit."""
        return items, self.sampled(items, rates)

    def sampled(
        self, items: Sequence[Item], rates: Costs, former: Estimates | None = None
    ) -> Costs:
        """Return the rates by what samples of some items show.

        `former` are estimates of them at another CRF: by a few tried again the others are known too.
        """
        works = [(item, work) for item in items if (work := work_ahead(item)) is not None]
        estimates, refined = dict[EncodeCost, Estimate](), rates
        until = self.clock.monotonic() + self.seconds
        count = max(MIN_SAMPLES, SAMPLES // max(1, len(works)))
        for item, work in _drawn(works):
            if former is not None and work not in former:
                continue
            known = self._tell(items, refined, len(works))
            enough = known.high - known.low <= KNOWN_WITHIN * (known.high + known.low)
            enough = enough if former is None else len(estimates) >= TRIED_AGAIN
            left_s = until - self.clock.monotonic()
            if (estimates and enough) or left_s <= 0:
                break
            try:
                estimate = self._try(item, count, left_s)
            except Interruption:
                if self.for_crf is not None:
                    raise Stopped(
                        "Interrupted before the CRF was chosen; nothing was queued."
                    ) from None
                self.stop.clear()  # what is known by now will do
                break
            except (PermanentError, Unavailable):
                continue  # its job will say why
            if estimate is not None and estimate.size > 0:
                estimates[work] = estimate
                refined = rates.sampled(_with_former(estimates, former or {}))
        self._tell(items, refined, len(works))
        return refined

    def _try(self, item: Item, count: int, left_s: float) -> Estimate | None:
        assert item.profile is not None
        assert item.plan is not None
        assert item.info is not None
        with self.scratch(0) as folder:
            request = EncodeRequest(
                profile=item.profile,
                plan=item.plan,
                info=item.info,
                location=str(item.path),
                output=folder / "sample.mkv",
                duration_s=item.info.duration_s,
                source_size=item.size,
                max_seconds=left_s,
            )
            return self.encoder.estimate(request, count, stop=self.stop)

    def _tell(self, items: Sequence[Item], rates: Costs, of: int) -> Range:
        """Say what all renditions take, as far as it is known; return it."""
        known = with_forecast(items, rates, cores=1.0, workers=1).output or NOTHING
        self.emit(
            IngestEvent(
                event=EventName.SAMPLE_PROGRESS,
                at=self.clock.now(),
                counts={"sampled": len(rates.estimates), "files": of},
                forecast_size=(round(known.low), round(known.high)),
                reason=ENOUGH if self.for_crf is None else f"CRF {self.for_crf:g}",
            )
        )
        return known


def _with_former(estimates: Estimates, former: Estimates) -> Estimates:
    """Add the videos that were tried only before, changed as those that were tried again."""
    before = sum(former[work].size for work in estimates if work in former)
    ratio = sum(each.size for each in estimates.values()) / before if before else 1.0
    return {w: replace(e, size=e.size * ratio) for w, e in former.items()} | dict(estimates)


def _drawn(works: Sequence[tuple[Item, EncodeCost]]) -> list[tuple[Item, EncodeCost]]:
    """Return items in an order by chance, the same each time; one of double size is twice as early."""
    drawing = random.Random(0)  # noqa: S311 - a forecast, no secret
    return sorted(works, key=lambda pair: drawing.expovariate(max(1.0, pair[1].megapixels)))
