"""The order of an encode that a joined machine gets, for tests of each side of the line."""

from hevcq.domain.chunking import Chunk, ChunkPlan
from hevcq.domain.orders import Order, OrderedWork
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ports.encoder import UNMEASURED
from support.media_facts import media, profile, video

ORDER_ID = "0123456789abcdef"
_TIMES = {"duration_ticks": 10, "frames": 10}
CHUNKS = ChunkPlan(
    stream_index=0,
    time_base="1/10",
    chunks=(
        Chunk(index=0, start_pts=0, end_pts=10, last_pts=9, **_TIMES),
        Chunk(index=1, start_pts=10, end_pts=None, last_pts=19, **_TIMES),
    ),
    frames=20,
    end_pts=20,
    digest="d",
)


def new_order(
    size: int,
    *,
    tag: str = "tag",
    max_seconds: float = 60.0,
    test: bool = False,
    chunk: int | None = None,
) -> Order:
    """Return the order of a source of `size` bytes, or of a chunk of it; with `test` of a self-test."""
    recipe, info = profile(), media(video())
    plan = make_plan(recipe, info)
    assert isinstance(plan, EncodePlan)
    work = OrderedWork(
        plan=plan,
        info=info,
        measured=UNMEASURED,
        duration_s=1.0,
        source_size=size,
        source_tag=tag,
        suffix=".mkv",
        max_seconds=max_seconds,
        chunks=None if chunk is None else CHUNKS,
        chunk=chunk,
    )
    return Order(order_id=ORDER_ID, profile=recipe, work=None if test else work)
