"""The machines that encode: their list, and which of them take no new work."""

from collections.abc import Sequence

from hevcq.errors import UsageError
from hevcq.ports.backend import Backend
from hevcq.ports.machines import Machines, WorkerProcess
from hevcq.util.text import counted, duration, printable

ON_AWS = (
    "On AWS, ECS runs the workers: `aws ecs describe-services` lists them, `hevcq status` shows what "
    "they encode."
)
NONE = "No machine works: start `hevcq worker` or `hevcq service` on one."


def machines_of(backend: Backend) -> Machines:
    """Raise UsageError where only the cloud knows who works."""
    if backend.machines is None:
        raise UsageError(ON_AWS)
    return backend.machines


def listed(backend: Backend) -> list[dict[str, object]]:
    """Return every process that encodes, as `hevcq workers --json` prints it."""
    found = machines_of(backend).processes()
    return [
        {
            "type": "worker",
            "name": _name(each, found),
            **each.facts.model_dump(mode="json"),
            **each.model_dump(mode="json", exclude={"facts"}),
            "alive": each.alive,
            "joined": each.joined,
            "state": state_of(each),
        }
        for each in found
    ]


def _name(each: WorkerProcess, found: Sequence[WorkerProcess]) -> str:
    """Return how commands call a process: by its machine, and by its owner too where several work there."""
    machine = each.facts.machine
    several = sum(other.facts.machine == machine for other in found) > 1
    return f"{machine}/{each.owner[:8]}" if several else machine


def state_of(each: WorkerProcess) -> str:
    """Return in a word or two what a process that encodes does."""
    if each.ended:
        return "drained, stopped" if each.drained_by else "stopped"
    if not each.alive:
        return f"silent for {duration(each.seen_s)}"
    if each.drained_by:
        return f"draining {counted(len(each.jobs), 'job')}" if each.jobs else "drained"
    return "works" if each.jobs else "waits" if each.facts.waits else "idle"


def drain(backend: Backend, name: str, by: str) -> None:
    """Let a machine, or one process of it, take no new work; with `by` empty let it work again.

    Raises UsageError for a name that is not in the list.
    """
    machines, (key, _) = machines_of(backend), _named(backend, name)
    machines.drain(key, by)


def remove(backend: Backend, name: str) -> None:
    """Take a machine or process that works no more from the list; raise UsageError for any other."""
    machines, (key, meant) = machines_of(backend), _named(backend, name)
    if any(each.alive for each in meant):
        raise UsageError(f"{printable(name)} still works: stop hevcq there first.")
    machines.remove(key)


def _named(backend: Backend, name: str) -> tuple[str, list[WorkerProcess]]:
    """Return by what the table knows a name, a machine or an owner, and the processes that are meant."""
    found = machines_of(backend).processes()
    if meant := [each for each in found if each.facts.machine == name]:
        return name, meant
    for each in found:
        if _name(each, found) == name:
            return each.owner, [each]
    names = sorted({printable(_name(each, found)) for each in found})
    there = f"There are: {', '.join(names)}." if names else NONE
    raise UsageError(f"No machine {printable(name)}. {there}")
