"""Settings of the hours in which this machine works."""

import shlex

from pydantic import Field, field_validator

from hevcq.domain.model import Frozen
from hevcq.domain.pause import Hours, RunningWork
from hevcq.domain.schedule import Schedule
from hevcq.settings.quantities import Windows


class ScheduleSettings(Frozen):
    """When work may run. Without any of these it always may."""

    # A variable may say `Mon-Fri 22:00-06:30; Sat,Sun 00:00-24:00`.
    windows: Windows = Field(
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
    def _windows(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Schedule.parse(value)
        return value

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

    def hours(self) -> Hours:
        return Hours(Schedule.parse(self.windows, self.timezone), self.at_end)
