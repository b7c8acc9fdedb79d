"""Find and read profile files: `<name>.yaml` becomes a validated Profile."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from hevcq.domain.profile import Profile
from hevcq.domain.quality import NAMES
from hevcq.errors import ConfigError, UnknownProfile, UsageError
from hevcq.settings.loader import did_you_mean, explain
from hevcq.settings.model import Settings
from hevcq.util.text import reason_of


def installed_folder() -> Path:
    """Return the folder of the profiles that come with hevcq: the package's, or the checkout's."""
    packaged = Path(__file__).resolve().parents[1] / "workers"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "workers"


def user_folder() -> Path:
    """Return the folder of the user's own profiles, which need not exist."""
    return Path(platformdirs.user_config_dir("hevcq", appauthor=False)) / "profiles"


def profile_folder(settings: Settings) -> Path:
    """Return the folder to read profiles from: the configured one, the user's own, or the installed one."""
    own = user_folder()
    if settings.profiles_dir is not None:
        return settings.profiles_dir
    return own if any(own.glob("*.yaml")) else installed_folder()


def copy_profiles(source: Path, target: Path) -> Iterator[tuple[Path, bool]]:
    """Copy each profile file that the target lacks; yield every target path, and whether it is new.

    Raises ConfigError if the target cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is not a folder.")
    for path in sorted(source.glob("*.yaml")):
        copy = target / path.name
        try:
            target.mkdir(parents=True, exist_ok=True)
            with copy.open("x", encoding="utf-8") as writing:
                writing.write(path.read_text(encoding="utf-8"))
        except FileExistsError:
            yield copy, False
        except OSError as error:
            raise ConfigError(f"Cannot write {copy}: {error.strerror}.") from error
        else:
            yield copy, True


def load_profile(path: Path) -> Profile:
    """Read one profile file; raise ConfigError naming the file, the key and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the profile {path}: {reason_of(error)}.") from error
    raw = read_yaml(text, f"The profile {path}")
    try:
        profile = Profile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"Invalid profile {path}: {explain(error, Profile)}.") from error
    if profile.name != path.stem:
        raise ConfigError(
            f"The profile {path} is named {profile.name!r}; file name and `name` must match."
        )
    return profile


def with_quality(profile: Profile, quality: str) -> Profile:
    """Return the profile with a quality to search the CRF for: a VMAF score, or a name of NAMES.

    Raises UsageError if the profile does not allow it.
    """
    raw = profile.model_dump(mode="json")
    target = NAMES.get(quality, quality)
    try:
        return Profile.model_validate({**raw, "video": {**raw["video"], "quality": target}})
    except ValidationError as error:
        raise UsageError(
            f"--quality {quality} with {profile.name}: {explain(error, Profile)}.",
            remedy=f"Say {', '.join(NAMES)}, or a number of VMAF from 70 to 99.",
        ) from error


def read_yaml(text: str, name: str = "This") -> dict[str, Any]:
    """Return the mapping in a profile's text. Raises ConfigError, also for a key that is given twice."""
    import yaml

    class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(  # the signature is PyYAML's
            self,
            node: yaml.MappingNode,
            deep: bool = False,  # noqa: FBT001
        ) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise yaml.YAMLError(f"duplicate key {twice!r}{node.start_mark}")
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    try:
        raw = yaml.load(text, Strict)  # noqa: S506 - a SafeLoader, stricter still
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {reason_of(error)}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} is not a YAML mapping.")
    return raw


def load_profiles(folder: Path) -> dict[str, Profile]:
    """Read every `*.yaml` of a folder, by name; raise ConfigError if there is none."""
    profiles = {path.stem: load_profile(path) for path in sorted(folder.glob("*.yaml"))}
    if not profiles:
        raise ConfigError(f"No profiles (*.yaml) in {folder}.")
    return profiles


def read_profiles(settings: Settings) -> dict[str, Profile]:
    """Return the profiles of a farm by name; on AWS those that have a queue there. Raises ConfigError."""
    profiles = load_profiles(profile_folder(settings))
    if not settings.on_aws:
        return profiles
    names = settings.aws.profiles
    deployed = {
        name: profile
        for name, profile in profiles.items()
        if (name in names if names else profile.fleet.deployed)
    }
    if names and not deployed:
        raise ConfigError(
            f"aws.profiles names none of the profiles here: {', '.join(profiles)}.",
            remedy="Correct it, or set profiles_dir to the folder that has them.",
        )
    if beside := [name for name, profile in deployed.items() if profile.subtitles.beside]:
        raise ConfigError(
            f"{', '.join(beside)}: subtitles.beside is for media folders, and AWS has none.",
            remedy="Take it out; the rendition holds the subtitles as tracks.",
        )
    return deployed


def pick(profiles: Mapping[str, Profile], names: list[str]) -> list[Profile]:
    """Return the named profiles; raise UnknownProfile with the nearest known name."""
    for name in names:
        if name not in profiles:
            every = f"Available: {', '.join(sorted(profiles))}."
            remedy = did_you_mean(name, profiles, every)
            raise UnknownProfile(f"No profile {name!r}.", remedy=remedy)
    return [profiles[name] for name in names]
