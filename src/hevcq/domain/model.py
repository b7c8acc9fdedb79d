"""Provide the base class of domain values, and the facts about load that every machine reports."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]
"""Numbers that a machine reports, within what a database, a certificate and a page can hold."""


class Frozen(BaseModel):
    """An immutable value that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MachineLoad(Frozen):
    """A machine's load: programs that wanted a core in the last minute, and sizes in bytes; None if unknown."""

    load: Amount | None = None
    memory: Count | None = None
    memory_free: Count | None = None
    scratch_free: Count | None = None

    def load_facts(self) -> dict[str, Any]:
        """Return the fields of MachineLoad alone, without those of a subclass."""
        return self.model_dump(include=set(MachineLoad.model_fields))
