"""Narrow the forecast of many videos by samples of a few seconds of some of them.

Videos are drawn by chance, large ones more often: they decide the sum, and what is true of the drawn ones
is then true of the others. It ends once the sum is known well enough, or after a time.
"""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from hevcq.domain.events import EventName, IngestEvent, Listener
from hevcq.errors import Interruption, PermanentError, Unavailable
from hevcq.ports.catalog import EncodeCost
from hevcq.ports.encoder import Encoder, EncodeRequest, Estimate, SpareFolder
from hevcq.usecases.ingest.decide import Item, with_forecast, work_ahead
from hevcq.usecases.ingest.forecast import NOTHING, Costs, Range
from hevcq.util.clock import Clock

KNOWN_WITHIN = 0.1
"""Half of the range of all sizes, as a share, at which no more is tried."""
MIN_SAMPLES, SAMPLES = 3, 12
"""Samples of one video at least, and of all together: many videos say more than much of one."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Samples for `seconds` in all. A set `stop` only ends the sampling."""

    encoder: Encoder
    scratch: SpareFolder
    clock: Clock
    stop: threading.Event
    emit: Listener
    seconds: float

    def __call__(self, items: Sequence[Item], rates: Costs) -> Costs:
        """Return the rates by what samples of some items show. Raises DiskFull or WorkerUnfit."""
        works = [(item, work) for item in items if (work := work_ahead(item)) is not None]
        estimates, refined = dict[EncodeCost, Estimate](), rates
        until = self.clock.monotonic() + self.seconds
        count = max(MIN_SAMPLES, SAMPLES // max(1, len(works)))
        for item, work in _drawn(works):
            known = self._tell(items, refined, len(works))
            enough = known.high - known.low <= KNOWN_WITHIN * (known.high + known.low)
            left_s = until - self.clock.monotonic()
            if (estimates and enough) or left_s <= 0:
                break
            try:
                estimate = self._try(item, count, left_s)
            except Interruption:
                self.stop.clear()  # what is known by now will do
                break
            except (PermanentError, Unavailable):
                continue  # its job will say why
            if estimate is not None and estimate.size > 0:
                estimates[work] = estimate
                refined = rates.sampled(estimates)
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
            )
        )
        return known


def _drawn(works: Sequence[tuple[Item, EncodeCost]]) -> list[tuple[Item, EncodeCost]]:
    """Return items in an order by chance, the same each time; one of double size is twice as early."""
    drawing = random.Random(0)  # noqa: S311 - a forecast, no secret
    return sorted(works, key=lambda pair: drawing.expovariate(max(1.0, pair[1].megapixels)))
