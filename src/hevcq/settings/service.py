"""Settings of `hevcq service`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ServiceSettings(BaseModel):
    """What `hevcq service` does beside looking after the libraries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: bool = Field(
        default=True, description="also serve the web page, where hevcq[web] is installed"
    )
