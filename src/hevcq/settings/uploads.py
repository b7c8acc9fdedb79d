"""Settings of uploads through the page and the API: limits, quotas, how long the raw file is kept."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

GIB = 1 << 30
"""Bytes of a GiB, in which people think of videos."""
DAY_S = 86_400.0
HOUR_S = 3_600.0


class UploadSettings(BaseModel):
    """How much may be uploaded, and how long uploaded files are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_gib: float = Field(default=50, gt=0, le=48_800, description="largest video (GiB)")
    owner_gib: float = Field(
        default=0, ge=0, description="space that one person's videos may take (GiB); 0: no limit"
    )
    owner_open: int = Field(
        default=10, ge=0, description="unfinished uploads that one person may have; 0: no limit"
    )
    farm_gib: float = Field(
        default=0, ge=0, description="space that all videos together may take (GiB); 0: no limit"
    )
    farm_open: int = Field(
        default=200, ge=0, description="unfinished uploads of everybody together; 0: no limit"
    )
    expire_hours: float = Field(
        default=48,
        gt=0,
        le=24 * 365,
        description="hours without progress until an upload is dropped",
    )
    raw_retention_days: float = Field(
        default=7,
        ge=0,
        description="days that the uploaded file is kept after all its renditions are published; it "
        "is never deleted where one is missing",
    )
    link_hours: float = Field(
        default=6, gt=0, le=168, description="aws: hours that a link to a stored file is valid"
    )

    @property
    def max_bytes(self) -> int:
        """The largest video in bytes."""
        return int(self.max_gib * GIB)

    @property
    def expire_s(self) -> float:
        """Seconds without progress until an upload is dropped."""
        return self.expire_hours * HOUR_S

    @property
    def raw_retention_s(self) -> float:
        """Seconds that the uploaded file is kept after its renditions are published."""
        return self.raw_retention_days * DAY_S
