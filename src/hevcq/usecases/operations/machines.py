"""The machines that encode: their list, and which of them take no new work."""

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
    return [
        {
            "type": "worker",
            **each.facts.model_dump(mode="json"),
            **each.model_dump(mode="json", exclude={"facts"}),
            "alive": each.alive,
            "state": state_of(each),
        }
        for each in machines_of(backend).processes()
    ]


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
    """Let a machine take no new work, or with `by` empty let it work again.

    Raises UsageError for a name that is not in the list.
    """
    machines = machines_of(backend)
    if not machines.drain(name, by):
        raise _unknown(machines, name)


def remove(backend: Backend, name: str) -> None:
    """Take a machine that works no more from the list; raise UsageError for any other."""
    machines = machines_of(backend)
    if any(each.alive and each.facts.machine == name for each in machines.processes()):
        raise UsageError(f"{printable(name)} still works: stop hevcq there first.")
    if not machines.remove(name):
        raise _unknown(machines, name)


def _unknown(machines: Machines, name: str) -> UsageError:
    names = sorted({printable(each.facts.machine) for each in machines.processes()})
    there = f"There are: {', '.join(names)}." if names else NONE
    return UsageError(f"No machine {printable(name)}. {there}")
