"""Open what the checks of `hevcq doctor` need."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from hevcq.errors import HevcqError
from hevcq.usecases.doctor import DoctorContext
from hevcq.wiring.notify import check_receivers
from hevcq.wiring.sync import open_remote

if TYPE_CHECKING:
    from hevcq.domain.profile import Profile
    from hevcq.wiring.app import App


def doctor_context(app: App) -> DoctorContext:
    """Return what the checks of this machine need; each is opened by the check that asks for it."""
    from hevcq.worker.scratch import Scratch

    def self_test(profile: Profile) -> str:
        with closing(Scratch(app.settings.scratch, app.clock)) as scratch, ExitStack() as stack:
            try:
                app.encoder.version()
                folder = stack.enter_context(scratch.job("self-test"))
            except HevcqError:  # the checks of ffmpeg and of the folder say it
                return ""
            app.encoder.self_test(profile, folder, stop=threading.Event())
        return "one second of picture and sound was encoded and verified"

    return DoctorContext(
        app.settings,
        app.clock,
        profiles=lambda: app.profiles,
        encoder=lambda: app.encoder,
        backend=lambda: app.backend,
        remote=open_remote,
        messages=lambda: check_receivers(app),
        self_test=self_test,
    )
