"""Bugs in what decides: verdicts, routing, keys, gates."""

from __future__ import annotations

from .plant import Bug

DOMAIN, FFMPEG = "src/hevcq/domain", "src/hevcq/ffmpeg"
VERDICT, KEYS = ("tests/unit/domain/test_verdict.py",), ("tests/unit/domain/test_keys.py",)
CERTIFICATE = ("tests/unit/domain/test_certificate.py",)
DAMAGE = ("tests/ffmpeg/verify/test_damage.py", "-k")
PURE = ("tests/chaos/test_planted_survivors.py",)
SICK = ("tests/ffmpeg/process/test_sick_programs.py",)

BUGS = (
    Bug(
        "poison tried again",
        f"{DOMAIN}/verdict.py",
        "    if isinstance(error, (PermanentError, BadKey)):",
        "    if isinstance(error, BadKey):",
        VERDICT,
    ),
    Bug(
        "an interruption counted as a failure",
        f"{DOMAIN}/verdict.py",
        "    if isinstance(error, (Interruption, WorkerUnfit, DiskFull, StorageError)):",
        "    if isinstance(error, (WorkerUnfit, DiskFull, StorageError)):",
        VERDICT,
    ),
    Bug(
        "one failure more than allowed",
        f"{DOMAIN}/verdict.py",
        "            if failures + 1 >= limits.max_failures:",
        "            if failures >= limits.max_failures:",
        VERDICT,
    ),
    Bug(
        "back-off without a cap",
        f"{DOMAIN}/verdict.py",
        "    whole = min(limits.backoff_cap_s, limits.backoff_base_s * 2.0 ** min(failures, 32))",
        "    whole = limits.backoff_base_s * 2.0 ** min(failures, 32)",
        VERDICT,
    ),
    Bug(
        "TODO/<profile> goes to everybody",
        f"{DOMAIN}/keys.py",
        "        return parts[1] == profile",
        "        return subscribed",
        KEYS,
    ),
    Bug(
        "a key with .. accepted",
        f"{DOMAIN}/keys.py",
        '    if any(part in {"", ".", ".."} for part in key.split("/")):',
        '    if any(part in {"", "."} for part in key.split("/")):',
        KEYS,
    ),
    Bug(
        "a new upload is the same job",
        f"{DOMAIN}/job.py",
        "    return _digest(source.bucket, source.key, source.version, profile)",
        "    return _digest(source.bucket, source.key, profile)",
        ("tests/unit/domain/test_job.py",),
    ),
    Bug(
        "unknown counted as passed",
        f"{DOMAIN}/certificate.py",
        "        if not off and result.outcome is not Outcome.PASSED:",
        "        if not off and result.outcome not in {Outcome.PASSED, Outcome.UNKNOWN}:",
        CERTIFICATE,
    ),
    Bug(
        "a gate that did not run counted as passed",
        f"{DOMAIN}/certificate.py",
        'raise VerificationFailed(f"{gate.value}: the gate did not run.")',
        "continue",
        CERTIFICATE,
    ),
    Bug(
        "a required gate may be off",
        f"{DOMAIN}/certificate.py",
        "        off = result.outcome is Outcome.OFF and gate not in NEVER_OFF",
        "        off = result.outcome is Outcome.OFF",
        CERTIFICATE,
    ),
    Bug(
        "verification skipped where ffmpeg ended with 0",
        f"{FFMPEG}/verify.py",
        "            outcome, detail = judge()",
        "            outcome, detail = PASSED",
        (*DAMAGE, "test_a_wrong_codec_is_caught or test_any_unknown_line"),
    ),
    Bug(
        "G4 decodes the default streams only",
        f"{FFMPEG}/verify_picture.py",
        '        "-map", "0:v?", "-map", "0:a?", "-fps_mode"',
        '        "-fps_mode"',
        PURE,
    ),
    Bug(
        "G5 ignores the number of frames",
        f"{FFMPEG}/verify_times.py",
        "    if not fewest <= made <= source:",
        "    if False:",
        ("tests/ffmpeg/verify/test_times.py",),
    ),
    Bug(
        "copied tracks not compared byte by byte",
        f"{FFMPEG}/verify_times.py",
        "        elif pair.source.digest != pair.made.digest:",
        "        elif False:",
        ("tests/ffmpeg/verify/test_times.py",),
    ),
    Bug(
        "a lost stream is no problem",
        f"{FFMPEG}/verify_streams.py",
        "    if len(made) != len(plan.kept):",
        "    if len(made) < 1:",
        (*DAMAGE, "test_a_dropped_second_sound_is_caught"),
    ),
    Bug(
        "a frozen picture is no problem",
        f"{FFMPEG}/verify_picture.py",
        "    return moved > MOVES and _distance(one[1], other[1]) < FOLLOWS * moved",
        "    return False",
        PURE,
    ),
    Bug(
        "an ffmpeg that fails without a word decodes well",
        f"{FFMPEG}/verify_picture.py",
        "    if done.returncode != 0 and not lines:",
        "    if False:",
        PURE,
    ),
    Bug(
        "films refused by an ffprobe that cannot run",
        f"{FFMPEG}/trial.py",
        "    except (SourceGone, SourceUnreadable, SourceDamaged):\n        require_sound(tools, stop)\n",
        "    except (SourceGone, SourceUnreadable, SourceDamaged):\n",
        SICK,
    ),
)
