"""Open what the checks of `hevcq doctor` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hevcq.errors import HevcqError
from hevcq.usecases.doctor import DoctorContext
from hevcq.wiring.notify import check_receivers
from hevcq.wiring.sync import open_remote

if TYPE_CHECKING:
    from hevcq.wiring.app import App


def doctor_context(app: App) -> DoctorContext:
    """Return what the checks of this machine need; each is opened by the check that asks for it."""
    from hevcq.usecases.placement.lived_time import measure

    def clock_problem() -> str:
        try:
            return measure(app.catalog, app.clock).problem
        except HevcqError:  # the check of the database says it
            return ""

    return DoctorContext(
        app.settings,
        app.clock,
        profiles=lambda: app.profiles,
        encoder=lambda: app.encoder,
        backend=lambda: app.backend,
        clock_problem=clock_problem,
        remote=open_remote,
        messages=lambda: check_receivers(app),
    )
