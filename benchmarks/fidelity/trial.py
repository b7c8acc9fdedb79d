"""Take one file through probe, plan, pre-flight, encode and gates, and name the outcome in one word."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hevcq.domain.certificate import Outcome
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Refuse, Skip, revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.errors import HevcqError
from hevcq.settings.profile_files import installed_folder, load_profile
from support.rendition import ENCODER, request_of

QUICK: dict[str, dict[str, Any]] = {
    "video": {"preset": "veryfast"},
    "gates": {"minimum_saving": None},
}
"""A quick preset makes larger files, so the gates on size are not asked."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its goal, and whether the goal is met."""

    name: str
    value: str
    goal: str
    met: bool


@dataclass(slots=True)
class Trial:
    """What became of one file under one profile.

    `outcome` is `encoded`, `skip:<reason>`, `refused:<policy>` (by the plan), `error:<class>` (in
    probe, pre-flight or encode) or `failed:<gate>`.
    """

    outcome: str
    detail: str = ""
    output: Path | None = None
    plan: EncodePlan | None = None


def recipe(name: str, **parts: dict[str, Any]) -> Profile:
    """Return an installed profile made quick; `parts` change keys of its parts."""
    raw = load_profile(installed_folder() / f"{name}.yaml").model_dump(mode="json")
    for changes in (QUICK, parts):
        for part, change in changes.items():
            raw[part] = {**raw[part], **change}
    return Profile.model_validate(raw)


def run_trial(source: Path, profile: Profile, folder: Path) -> Trial:
    """Take `source` through the whole of hevcq's pipeline."""
    stop = threading.Event()
    try:
        info = ENCODER.probe(str(source), stop=stop)
        trimmed = ENCODER.trim_recording(str(source), info, folder, stop=stop)
        if trimmed is not None:
            source = trimmed.path
            info = ENCODER.probe(str(source), stop=stop)
        plan = make_plan(profile, info)
        if isinstance(plan, Skip):
            return Trial(f"skip:{plan.reason.value}", plan.detail)
        if isinstance(plan, Refuse):
            return Trial(f"refused:{plan.policy}", plan.detail)
        plan = plan.with_notices(*(trimmed.notices if trimmed is not None else ()))
        return _encoded(source, profile, folder, (info, plan))
    except HevcqError as error:
        return Trial(f"error:{type(error).__name__}", error.message)


def _encoded(
    source: Path, profile: Profile, folder: Path, decided: tuple[MediaInfo, EncodePlan]
) -> Trial:
    info, plan = decided
    stop = threading.Event()
    output = folder / f"{source.name}.{profile.name}.{plan.extension}"
    for left in (output, *folder.glob(f"{output.name}.[tl]*")):
        left.unlink(missing_ok=True)
    measured = ENCODER.preflight(str(source), info, profile, stop=stop)
    info, plan = revise_plan(make_plan, profile, decided, measured)
    request = request_of(source, output, profile, info=info, plan=plan, measured=measured)
    report = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
    gates = ENCODER.verify(request.to_verify(report), on_progress=lambda _: None, stop=stop)
    wrong = [gate for gate in gates if gate.outcome not in {Outcome.PASSED, Outcome.OFF}]
    outcome = f"failed:{wrong[0].gate.value}" if wrong else "encoded"
    detail = wrong[0].detail if wrong else " ".join(plan.notices)
    return Trial(outcome, detail, output, plan)
