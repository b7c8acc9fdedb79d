"""The systemd unit of `hevcq service`: its text, where it belongs, and writing and removing it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hevcq.errors import StorageError, UsageError
from hevcq.settings.model import Settings
from hevcq.util.file_io import fsync_folder, replace_durably

NAME = "hevcq.service"
MARK = "# Written by `hevcq service install`; `hevcq service uninstall` removes it."
WATCHDOG_S = 600
"""Seconds without a sign of life after which systemd starts the service anew. A single step may read
a large file on a slow share to its end."""
STOP_ROOM_S = 60
"""Seconds beyond the grace in which ffmpeg ends, renditions are put in place and files are closed."""
FINAL_EXITS = "2 3 4 5"
"""Exit codes that a restart does not mend: command line, settings, folders, ffmpeg."""
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - not used, only told apart
_ANYWHERE = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM"""
_SYSTEM_ONLY = """\
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes"""
"""A user's manager can set these up only where unprivileged user namespaces are allowed."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What the unit runs. `account` is the user of a system unit, "" for a user's own.

    `words` are the program and its arguments; paths are absolute.
    """

    words: tuple[str, ...]
    settings: Settings
    account: str = ""

    def text(self) -> str:
        """Return the unit file."""
        system = bool(self.account)
        after = "network-online.target remote-fs.target" if system else "default.target"
        service = [
            "Type=notify",
            f"ExecStart={' '.join(quoted(word) for word in self.words)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            f"WatchdogSec={WATCHDOG_S}",
            "Restart=on-failure",
            "RestartSec=10",
            f"RestartPreventExitStatus={FINAL_EXITS}",
            "KillMode=mixed",
            f"TimeoutStopSec={self.settings.stop_grace_s + STOP_ROOM_S:.0f}",
            "Nice=19",
            "IOSchedulingClass=idle",
            "CPUWeight=20",
        ]
        if system:
            service[1:1] = [f"User={self.account}", self._makes()]
        parts = ["# What it may not do", _ANYWHERE]
        if system:
            writable = " ".join(quoted(f"-{each}") for each in self.written())
            own_tmp = any(Path(t) in each.parents for t in TEMPORARY for each in self.written())
            parts += [_SYSTEM_ONLY, *([] if own_tmp else ["PrivateTmp=yes"])]
            parts += ["# What it writes; install it again for a new library"]
            parts += [f"ReadWritePaths={writable}"]
        lines = [
            MARK,
            "[Unit]",
            "Description=Re-encode the videos of the libraries (hevcq)",
            *([f"Wants=network-online.target\nAfter={after}"] if system else []),
            "",
            "[Service]",
            *service,
            *parts,
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if system else 'default.target'}",
        ]
        return "\n".join(lines) + "\n"

    def _makes(self) -> str:
        """Return the line that makes hevcq's own folders where they are missing.

        Outside the limits, which hold for folders that are there; and as the user, because what is in
        a person's home is theirs to lead elsewhere.
        """
        found = dict.fromkeys((self.settings.data_dir, self.settings.scratch))
        own = " ".join(quoted(str(each)) for each in found)
        return f"ExecStartPre=-+/usr/sbin/runuser -u {self.account} -- mkdir -p -m 700 -- {own}"

    def written(self) -> Sequence[Path]:
        """Return the folders that the service writes, each once."""
        settings = self.settings
        found = [settings.data_dir, settings.scratch]
        found += [path for each in settings.libraries for path in (each.path, each.output) if path]
        found += [each.target for each in settings.sync]
        return list(dict.fromkeys(found))


def quoted(word: str) -> str:
    """Return a word as a unit file has it: one argument, in which nothing is expanded."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    safe = all(each.isalnum() or each in "/._-+:@%=," for each in plain)
    return plain if safe else f'"{plain}"'


def unit_file(*, system: bool, config_home: Path) -> Path:
    """Return where the unit belongs; `config_home` is the person's folder of settings."""
    folder = Path("/etc/systemd/system") if system else config_home / "systemd" / "user"
    return folder / NAME


def install(file: Path, text: str) -> bool:
    """Write the unit; return whether it is another one than before.

    Raises UsageError for a file that somebody else wrote, StorageError if it cannot be written.
    """
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if before and not before.startswith(MARK):
            raise UsageError(
                f"{file} is not from hevcq; it stays as it is.",
                remedy="Move it away, or compare it with --dry-run.",
            )
        if before == text:
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        temp = file.with_name(f".{file.name}.{os.getpid()}")
        temp.write_text(text, encoding="utf-8")
        replace_durably(temp, file)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"Cannot write {file}: {why}.") from error
    return True


def uninstall(file: Path) -> bool:
    """Remove the unit and what enables it; return whether there was one.

    Raises UsageError for a file that is not from hevcq, and StorageError.
    """
    try:
        if not file.exists():
            return False
        if not file.read_text(encoding="utf-8").startswith(MARK):
            raise UsageError(f"{file} is not from hevcq; it stays as it is.")
        for target in ("default.target.wants", "multi-user.target.wants"):
            with suppress(FileNotFoundError):
                (file.parent / target / file.name).unlink()
        file.unlink()
        fsync_folder(file.parent)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"Cannot remove {file}: {why}.") from error
    return True
