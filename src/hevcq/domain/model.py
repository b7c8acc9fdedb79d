"""Provide the base of every domain value: immutable, without unknown fields; and what machines say alike."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MachineLoad(Frozen):
    """What a machine has left: programs that wanted a core in the last minute, and bytes; None if unknown."""

    load: float | None = None
    memory: int | None = None
    memory_free: int | None = None
    scratch_free: int | None = None

    def left(self) -> dict[str, Any]:
        """Return these facts alone, without those of a model that adds to them."""
        return self.model_dump(include=set(MachineLoad.model_fields))
