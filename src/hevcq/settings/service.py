"""Settings of `hevcq service`, and of the health check that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hevcq.domain.schedule import Schedule
from hevcq.settings.quantities import ByteRate, bytes_per_second

AT_NIGHT = ("01:00-06:00",)


def share(text: str) -> Fraction:
    """Return a share such as `1/12`, more than 0 and at most 1. Raises ValueError."""
    try:
        part = Fraction(text)
    except (ValueError, ZeroDivisionError):
        part = Fraction(0)
    if not 0 < part <= 1:
        raise ValueError("must be a share such as 1/12")
    return part


class ServiceSettings(BaseModel):
    """What `hevcq service` does beside looking after the libraries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: bool = Field(
        default=True, description="also serve the web page, where hevcq[web] is installed"
    )


class HealthSettings(BaseModel):
    """Which part of the libraries `hevcq service` reads whole, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: str = Field(
        default="",
        description='share of the libraries that is read in a month, like "1/12"; empty: none',
    )
    # Text too: a variable may say `Mon-Fri 01:00-05:00; Sat,Sun 00:00-24:00`.
    hours: tuple[str, ...] | str = Field(
        default=(),
        description="hours in which it is read; empty: schedule.windows, else 01:00-06:00",
    )
    limit: ByteRate = Field(
        default="20M", description="most bytes a second on average; empty: no limit"
    )
    decode: bool = Field(default=False, description="decode every picture, not only packets")

    @field_validator("share", mode="after")
    @classmethod
    def _share(cls, value: str) -> str:
        if value:
            share(value)
        return value

    @field_validator("hours", mode="after")
    @classmethod
    def _hours(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        texts = value.split(";") if isinstance(value, str) else value
        found = tuple(text.strip() for text in texts if text.strip())
        Schedule.parse(found)
        return found

    @property
    def part(self) -> Fraction:
        """The share; 0 for none."""
        return share(self.share) if self.share else Fraction(0)

    @property
    def bytes_s(self) -> float:
        """Most bytes a second; 0 for no limit."""
        return bytes_per_second(self.limit)

    def schedule(self, machine: Sequence[str], timezone: str) -> Schedule:
        """Return when it is read: in its hours, else the windows of the machine, else at night."""
        return Schedule.parse(tuple(self.hours) or tuple(machine) or AT_NIGHT, timezone)
