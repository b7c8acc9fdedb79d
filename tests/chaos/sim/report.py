"""The figures of a campaign as a table for people."""

from types import SimpleNamespace

from chaos.points import WAYS, points


def table(found: SimpleNamespace) -> str:
    """Return the figures, one a line."""
    stats, wall = found.stats, found.wall_s
    hours = stats.seconds / 3600
    known = set(points(*WAYS))
    missed = sorted(known - set(stats.points))
    unkilled = sorted(known - set(stats.killed_at))
    rows = [
        ("worlds", f"{stats.worlds:,}"),
        ("job lives", f"{stats.lives:,}"),
        ("scheduler steps", f"{stats.steps:,}"),
        ("wall seconds", f"{wall:.1f} with {found.processes} processes"),
        ("job lives a minute", f"{stats.lives / wall * 60:,.0f}"),
        ("simulated hours", f"{hours:,.0f}"),
        ("simulated hours per wall hour", f"{hours / wall * 3600:,.0f}"),
        ("ends", _counted(stats.ends)),
        ("faults", _counted(stats.faults)),
        ("calls by port", _counted(_by_port(stats.calls))),
        ("pool outcomes", _counted(stats.outcomes)),
        ("crash points passed", f"{len(stats.points)}; of {len(known)} never: {missed}"),
        ("crash points killed at", f"{len(stats.killed_at)}; of {len(known)} never: {unkilled}"),
    ]
    return "\n".join(f"{name:32} {value}" for name, value in rows)


def _counted(counter) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counter.most_common())


def _by_port(calls) -> object:
    ports = type(calls)()
    for name, number in calls.items():
        ports[name.split(".")[0]] += number
    return ports
