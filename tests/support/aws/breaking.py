"""A client whose calls a test can watch, break before they happen, or break after they have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError


def refusal(code: str, status: int = 400, **more: Any) -> ClientError:
    """Return a service's error answer."""
    answer = {
        "Error": {"Code": code, "Message": f"{code}, says the test"},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(answer, "Tested")


def broken() -> ConnectionClosedError:
    """Return a connection that ended without an answer."""
    return ConnectionClosedError(endpoint_url="http://test")


@dataclass
class Breaking:
    """Stands before a boto client.

    `calls` lists (method, arguments). `plan[method]` is a list of what happens to the next calls:
    None passes, an exception is raised instead of the call, ("after", exception) is raised once
    the call was carried out (a lost reply), and a function takes the call over.
    """

    client: Any
    plan: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        if name == "exceptions" or not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, kwargs))
            steps = self.plan.get(name, [])
            step = steps.pop(0) if steps else None
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, Callable):
                return step(real, *args, **kwargs)
            found = real(*args, **kwargs)
            if isinstance(step, tuple):
                raise step[1]
            return found

        return call

    def count(self, name: str) -> int:
        """Return how often a method was called."""
        return sum(1 for called, _ in self.calls if called == name)
