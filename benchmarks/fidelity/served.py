"""The share of an ordinary library that is served: encoded and verified, or skipped for a good reason."""

from pathlib import Path

from benchmarks.fidelity.ordinary import ORDINARY, SHARED, Ordinary, make
from benchmarks.fidelity.trial import Figure, Trial, recipe, run_trial

PROFILES = ("hevc", "720p")
GOAL = 0.95


def figure(folder: Path, words: tuple[str, ...] = ()) -> Figure:
    """Take every ordinary file through both profiles; print each whose outcome is not the table's."""
    served = total = 0
    profiles = {name: recipe(name) for name in PROFILES}
    for clip in (*ORDINARY, *SHARED):
        if words and not any(word in clip.name for word in words):
            continue
        source = make(clip, folder)
        if source is None:
            continue
        for name, expected in zip(PROFILES, clip.outcomes, strict=True):
            trial = run_trial(source, profiles[name], folder)
            served += is_served(trial, expected)
            total += 1
            if words or trial.outcome != expected:
                print(f"{clip.name} {name}: {trial.outcome}, expected {expected}: {trial.detail}")
            if trial.output is not None:
                trial.output.unlink(missing_ok=True)
    share = served / total if total else 0.0
    return Figure(
        "ordinary files served", f"{served} of {total}, {share:.1%}", f"{GOAL:.0%}", share >= GOAL
    )


def is_served(trial: Trial, expected: str) -> bool:
    """Whether the person has what the profile promises: a rendition, or a skip that the table expects."""
    return trial.outcome in {"encoded", expected if expected.startswith("skip:") else "encoded"}


def named(name: str) -> Ordinary:
    """Return the ordinary file of that name."""
    return next(clip for clip in (*ORDINARY, *SHARED) if clip.name == name)
