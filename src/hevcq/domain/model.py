"""Provide the base of every domain value: immutable, without unknown fields; and what machines say alike."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
"""Numbers that a machine says: what no database, certificate or page can hold, it does not mean."""


class Frozen(BaseModel):
    """An immutable value that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MachineLoad(Frozen):
    """What a machine has left: programs that wanted a core in the last minute, and bytes; None if unknown."""

    load: Amount | None = None
    memory: Count | None = None
    memory_free: Count | None = None
    scratch_free: Count | None = None

    def left(self) -> dict[str, Any]:
        """Return these facts alone, without those of a model that adds to them."""
        return self.model_dump(include=set(MachineLoad.model_fields))
