"""What is searched: short scopes with every change, long ones with `make chaos`.

Ticks of 14 s put a lease of 30 s and its margin of 3 s at every age that matters: fresh, due for a
heartbeat, lost to its holder though not yet to others, run out. Then it matters that the workers'
clocks differ: a claim that has run out by the one still lives by the other. Ticks of 20 s leave
that age away.
"""

from chaos.protocol.farm import Scope
from chaos.protocol.trouble import Spare

EVEN = (0.0, 0.0)
SHORT = (
    Scope("one job, an expiry", 1, Spare(expiries=1)),
    Scope("one job, a kill", 1, Spare(kills=1, broken=1)),
    Scope("one job, a stop and a failure", 1, Spare(stops=1, broken=1)),
    Scope("one job, a lost message", 1, Spare(silent=1)),
    Scope("one job, a late answer", 1, Spare(slow=1)),
    Scope("one job, shown again", 1, Spare(shown_again=1)),
    Scope("two jobs", 2, Spare(kills=1), tick_s=20.0),
)
LONG = (
    Scope("one job, two expiries, a kill", 1, Spare(expiries=2, kills=1)),
    Scope("one job, an expiry, a kill, a lost message", 1, Spare(expiries=1, kills=1, silent=1)),
    Scope("one job, an expiry, a late answer", 1, Spare(expiries=1, slow=1)),
    Scope("one job, an expiry, shown again", 1, Spare(expiries=1, shown_again=1)),
    Scope("one job, an expiry, a stop, failures", 1, Spare(expiries=1, stops=1, broken=2)),
    Scope("two jobs, a kill, a stop, a failure", 2, Spare(kills=1, stops=1, broken=1), tick_s=20.0),
    Scope("two jobs, two expiries", 2, Spare(expiries=2), tick_s=20.0),
)
HUGE = Scope("two jobs, three expiries", 2, Spare(expiries=3))
"""Five CPU minutes. Its states are sound, and its last check fails: see docs/reliability/simulation.md."""
SQLITE_SHORT = Scope(
    "one job on the embedded backend", 1, Spare(kills=1, broken=1), tick_s=20.0, skews=EVEN
)
SQLITE = Scope(
    "one job, an expiry, a kill, on the embedded backend",
    1,
    Spare(expiries=1, kills=1),
    tick_s=20.0,
    skews=EVEN,
)
