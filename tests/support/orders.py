"""The order of an encode that a joined machine gets, for tests of each side of the line."""

from hevcq.domain.orders import Order, OrderedWork
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.ports.encoder import UNMEASURED
from support.media_facts import media, profile, video

ORDER_ID = "0123456789abcdef"


def new_order(
    size: int, *, tag: str = "tag", max_seconds: float = 60.0, test: bool = False
) -> Order:
    """Return the order of a source of `size` bytes; with `test` the one that asks for a self-test."""
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
    )
    return Order(order_id=ORDER_ID, profile=recipe, work=None if test else work)
