"""Settings of the hours in which this machine works, and of what else holds work back."""

from __future__ import annotations

import shlex

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hevcq.domain.pause import Hours, RunningWork
from hevcq.domain.schedule import Schedule


class ScheduleSettings(BaseModel):
    """When work may run. Without any of these it always may."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Text too: a variable may say `Mon-Fri 22:00-06:30; Sat,Sun 00:00-24:00`.
    windows: tuple[str, ...] | str = Field(
        default=(),
        description='hours in which work may run, like "Mon-Fri 22:00-06:30"; empty: always',
    )
    timezone: str = Field(
        default="", description="time zone of all windows, like Europe/Berlin; empty: the machine's"
    )
    at_end: RunningWork = Field(
        default=RunningWork.BORDER,
        description="running work when a window ends: border (encodes and chunks end, none begins), "
        "finish (split videos are finished too), freeze (stands still) or stop (starts again later)",
    )
    gate_command: str = Field(
        default="",
        description="program that is asked every minute; work runs only while its exit code is 0",
    )

    @field_validator("windows", mode="after")
    @classmethod
    def _windows(cls, value: tuple[str, ...] | str) -> tuple[str, ...]:
        texts = value.split(";") if isinstance(value, str) else value
        found = tuple(text.strip() for text in texts if text.strip())
        Schedule.parse(found)
        return found

    @field_validator("timezone", mode="after")
    @classmethod
    def _timezone(cls, value: str) -> str:
        Schedule.parse((), value)
        return value

    @field_validator("gate_command", mode="after")
    @classmethod
    def _command(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError(f"is not a command: {error}") from error
        return value.strip()

    @model_validator(mode="after")
    def _parsed(self) -> ScheduleSettings:
        self.hours()  # the two together
        return self

    def hours(self) -> Hours:
        """Return when this machine may work."""
        return Hours(Schedule.parse(self.windows, self.timezone), self.at_end)

    @property
    def conditional(self) -> bool:
        """Whether anything but the hours can hold work back."""
        return bool(self.gate_command)
