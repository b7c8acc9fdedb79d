"""Write docs/profiles.md from the profile model, so that no key goes undocumented.

Run as `python scripts/write_profiles_doc.py`; `--check` writes nothing and exits 1 when stale.
"""

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hevcq.domain.formats import (
    CONSTANT_RATE,
    FAMILIES,
    HARDWARE,
    VIDEO_FORMATS,
    VIDEO_HELD,
    Container,
)
from hevcq.domain.media import containers
from hevcq.domain.profile import Profile

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "profiles.md"
HEAD = """# Profiles

<!-- Written by scripts/write_profiles_doc.py from the model in src/hevcq/domain/profile*.py. -->

A profile is a recipe and the numbers of its queue: one file `workers/<name>.yaml`. hevcq validates
the file, and Terraform reads the same file, so a queue and its workers cannot disagree. To add a
profile, add a file; the setting `profiles_dir` names another folder. An upload reaches every profile
with `subscribe: true`; `hevcq ingest` makes those of the setting `ingest.profiles`, unless it names
others.

`hevcq profiles list` lists the profiles, `hevcq profiles show NAME` prints one with every default,
and `hevcq profiles validate FILE...` names each wrong key. An unknown key is an error.

| I want … | profile |
|---|---|
| the same video in less space | `hevc` |
| one file that plays on everything, at most 1920x1080 | `1080p` |
| the same in at most 1280x720, for phones and slow lines | `720p` |
| to stream: several sizes among which players switch, with subtitles and a storyboard | `hls` ([its page](hls.md)) |
| the same with HEVC beside H.264 | your copy of `hls` with `hls.hevc: true` |
| to stream with 5.1 beside stereo | your copy of `hls` with `hls.surround: eac3` |
| HDR to stream as HDR | your copy of `hls` with `hls.hevc: true` and `policies.hdr: keep` |
| less space still, for players of 2020 and later | `av1` |
| WebM for a web page | `webm` |
| every kind of track in one file, to keep | `mkv` |
| an old DVD player or television to play it | `avi` |
| Ogg for old free players (browsers show no picture) | `ogg` |
| no black bars, even loudness, few languages | your copy with `video.crop`, `audio.loudness`, `audio.languages` |
| subtitles as files beside the video, too | your copy with `subtitles.beside: true` |
| a phone's HDR to play everywhere | `720p`, `1080p` or `hls`: its tones are mapped to SDR, and they say so |

The smallest profile:

```yaml
name: small
description: H.265 at half the size
video:
  codec: hevc
  crf: 28
```

The `revision` of a profile is a digest of everything below except `description`, `subscribe`,
`chunking`, `queue` and `fleet`: a rendition depends on the rest. A source that was not worth encoding is
remembered by its bytes and this revision, so a changed recipe tries it again.

Beyond the ranges below: `queue.max_failures` is below `queue.max_receives`, and
`video.max_width` and `video.max_height` must be set together.
"""
FORMATS = """
## What a container carries

What a rendition's container or codec cannot hold is dropped, converted or refused by the policies above,
named by `hevcq profiles plan` before the encode and in the certificate. The profiles `webm`, `av1`, `mkv`, `ogg`
and `avi` come with hevcq and are asked for by name (`hevcq ingest -p webm`); no upload makes them unasked,
and Terraform gives them a queue only if its variable `profiles` names them.

With `--replace` a rendition takes an original's place only if it is smaller and loses nothing that
`policies.metadata` keeps. Ogg and AVI never do, because they hold no times of frames; WebM does not if
tracks have marks that it has no place for (comment, hearing impaired). Streams that a policy of the
profile drops or converts (subtitles, fonts) are a choice of the profile, so read it first.

Of what files say of themselves, ffmpeg copies a part. hevcq writes the rest into the rendition where there
is a place for it, reads it back, and fails the gate G3 if something is missing; what has no place is named
as above. From URLs (a farm on S3) only what ffmpeg reports is known.

| | MP4, MOV → MP4, MOV | Matroska → Matroska | MP4, MOV → Matroska | Matroska → MP4 |
|---|---|---|---|---|
| title, artist, date, GPS position, creation time and other plain tags | yes | yes | yes | yes, in free-form entries where iTunes has no field |
| XMP, Samsung's (and its trailer), GoPro's and other boxes of the file | as they are | | named | |
| Content Credentials (C2PA), which vouch for the original's bytes | left out, with a notice | | left out, with a notice | |
| iTunes' fields (sort fields, ratings, store numbers) | as they are | | what ffmpeg reads as tags; else named | |
| Apple's and Android's keys (`com.apple.…`) | yes | | as tags | yes |
| name of a track | `name` | its title | its title | `name`, and the handler's name |
| language by BCP 47 (`pt-BR`) | `elng` | LanguageBCP47 | LanguageBCP47 | `elng` |
| what players cut off of the picture (`clap`, PixelCrop) | named | refused | named | refused |
| `ID32` | named | | named | |
| reel of a time code; a broadcast's station | yes | | reel named; yes | yes |
| other boxes of a track | as they are | | named | |
| chapters: times and titles | yes | yes | yes | yes |
| several editions, ordered or hidden chapters, chapters in chapters, titles in several languages, tags of chapters | | named | | named |
| tags of levels (70: a series), in tags, in regional languages or binary; links to other files; a track that is not to be played | | named | | named |
| marks of tracks: default, forced, commentary, dubbed, for the deaf or the blind | MP4: yes; MOV: default, others named | yes | yes | yes |
| marks of tracks: original language (Matroska), captions, descriptions (MP4) | MP4: yes; MOV: named | yes | named | named |
| more than 100,000 bytes of boxes together | named | | | |

- Ogg and AVI count frames: every frame is put on one rate, and a picture that begins late is shown from
  the start. Theora leaves repeated pictures out; they are put back before each picture is compared.
- MP3 in AVI lies up to 25 ms late, because AVI has no place for an encoder's delay.
- Browsers show WebM, and AV1 in MP4; they play Ogg's sound only, and no AVI.
"""  # noqa: E501 - rows of a table
HARDWARE_HEAD = """
## Quality

`video.quality: 93`, or `hevcq ingest FOLDER --quality good`, asks for a look:
VMAF (v0.6.1, at the video's own size) of the worst twentieth of the frames.

- 4 to 16 samples of 2 s are encoded at up to five CRFs, from `video.crf` on; the largest within half a point wins, and
  up to 12 of 1 s follow there for the size.
  After three videos of a kind it starts where theirs ended, as `~/.cache/hevcq` remembers (on AWS each task
  begins anew); below ten minutes two CRFs do.
- Out of reach at the lowest CRF, or far too large by the samples: the original is kept without an encode.
- The finished video is measured elsewhere. 1.5 points short, it is encoded again; a second miss is said.
- HDR, files without frame times (AVI of H.264 or with B-frames, some MPG) and inverse telecine take `video.crf`,
  with a notice.

`hevcq ingest FOLDER --fit 25GB` or `--half` let the size choose instead: one CRF for all, the best of 18 to 32
(hevc) at which the forecast by samples fits to its upper end; choosing takes 30 s, or 15 % of the encodes' time.
If all is too much, nothing is queued. Kept originals need their space until they go.

`pipx inject hevcq imageio-ffmpeg` (68 MB) measures, or an ffmpeg with libvmaf
in `metric_ffmpeg`; `hevcq doctor` says which. Without one such jobs wait; the images have none.

## Hardware encoders

`video.encoder: auto`, or a list such as `[hevc_nvenc, hevc_qsv]`, lets a worker use the encoder of its
graphics hardware. Software stays the default: at the same size it looks better, so hardware is a choice of
the profile. What is in `ffmpeg -encoders` proves nothing; each allowed encoder is tried once by a worker
(ten pictures are encoded, decoded and compared), and `hevcq doctor` says which work and why others do not.

- A device that fails (no device, another driver, no answer, wrong pictures in its trial) is set aside for
  an hour. The video is not blamed: it is encoded in software.
- A driver that allows no more sessions (GeForce: 3 to 8 in the whole system) counts as a device that
  fails, for that video alone.
- The gates are the same. A rendition of a device that fails one sets the device aside, and the video is
  encoded again in software. The certificate names the device.
- HDR10 metadata, kept captions and other samples than 4:2:0 of 8 or 10 bits stay in software,
  and so do ladders; a video whose profile allows hardware is not split.
- The quality number is `video.crf` less 4, for AV1 on its encoder's scale. `video.preset` and `encoder_params`
  are those of software only.
- Every render node is tried in turn; `LIBVA_DRIVER_NAME` and `LIBVA_DRIVERS_PATH` reach ffmpeg.
- With the sandbox on, ffmpeg may control the device files of the family; a driver that needs more needs
  `sandbox = false`.

None of this was run on hardware: the commands are from the documents named in
`src/hevcq/domain/formats.py`, and a stand-in that fails as drivers do tests the rest.

| encoders | device files | validated on |
|---|---|---|
"""
TAIL = """
## What no rendition carries

What a policy above names is refused, dropped with a notice, or converted, as the policy says. The
following has no policy and is dropped silently:

- What only single pictures carry: active format description, user data, time codes within the
  pictures.
- Of MP4: alternate groups and references between tracks, ICC profiles, `gama`, `tapt`, volumes.
- Dates of single tracks, names of codecs and of writing programs, XMP of AVI.
- The alpha of an HEVC picture and the second eye of MV-HEVC, in a profile that does not skip HEVC.
- Times finer than a millisecond, if a video goes from another container to Matroska.

Shape, size, fields, captions, stereoscopic marks and dynamic HDR are looked for in the first
pictures and in key frames at twelve places throughout the video. What appears only between these
is missed. A video whose shape or
size is seen to change is refused.

Captions that the encoder cannot carry become a text track of each field that holds text (CC1, CC3),
decoded by ffmpeg from CEA-608 with the times of the pictures; places, colours and what only CEA-708
says are not kept. G5 decodes the source's captions a second time and compares every cue. This decodes
the video some times more, which no other video pays. A ladder carries captions in its H.264.

`video.invert_telecine: true` restores the original frames of a telecine (24 frames a second shown as
60 fields) by ffmpeg's `fieldmatch` and `decimate`; otherwise such a video is deinterlaced. Its frames
must be shown at even times, and HLS, a turned video, and one whose size changes or whose captions its
encoder carries, are always deinterlaced. A DVD whose frames are only flagged to be repeated holds them
once, and keeps their times.

Sound that the container cannot hold is converted to `audio.codec`, which loses quality: PCM in an
MP4 (Sony's XAVC S) becomes AAC, unless `container: mkv` holds it. A
further video stream is judged only by its header and the video's first pictures.

What is truly interlaced is deinterlaced; what is only marked so is encoded as the progressive video that
it is. Stereoscopic videos and those of 360 degrees are refused, because the mark that says so would be lost.
"""


def document() -> str:
    """Return the whole page."""
    parts = [HEAD, "## The profile itself\n", *_table(Profile, "")]
    for name, field in Profile.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            sentence = (model.__doc__ or "").strip().splitlines()[0]
            parts += [f"\n## `{name}`\n", f"{sentence}\n", *_table(model, f"{name}.")]
    return "\n".join([*parts, *_formats(), *_hardware(), TAIL])


def _hardware() -> Iterator[str]:
    """Yield what is said of hardware encoders, with one row for each family."""
    rows = []
    for family, row in FAMILIES.items():
        names = [name for name in HARDWARE if name.endswith(f"_{family}")]
        nodes = ", ".join(f"`{node}`" for node in row.nodes) or "-"
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {nodes} | never run |")
    yield HARDWARE_HEAD + "\n".join(rows)


def _formats() -> Iterator[str]:
    """Yield the table of what each container is made with and can carry."""
    yield FORMATS
    columns = ("video that is made", "sound that is copied", "subtitles", "pictures and fonts")
    yield f"| container | {' | '.join(columns)} | chapters | times |"
    yield "|---|---|---|---|---|---|---|"
    for container, codecs in VIDEO_HELD.items():
        if container in {Container.SOURCE, Container.HLS}:
            continue
        muxer = containers.MATROSKA if container is Container.MKV else container.value
        fonts = ["fonts"] * (muxer == containers.MATROSKA)
        once = container in CONSTANT_RATE
        cells = (
            f"`{container}`, {containers.NAMES[muxer]}",
            ", ".join(f"{codec} ({VIDEO_FORMATS[codec].encoder})" for codec in sorted(codecs)),
            _listed(containers.AUDIO[muxer]),
            _listed(containers.SUBTITLES.get(muxer, frozenset())),
            ", ".join([*sorted(containers.PICTURES.get(muxer, ())), *fonts]) or "none",
            "yes" if muxer in containers.CHAPTERED else "no",
            "one frame rate, sound without gaps" if once else _ticks(muxer),
        )
        yield f"| {' | '.join(cells)} |"


def _listed(names: frozenset[str]) -> str:
    shown = sorted(name for name in names if not name.startswith("pcm_"))
    return ", ".join([*shown, *(["PCM"] * (len(shown) < len(names)))]) or "none"


def _ticks(muxer: str) -> str:
    return "milliseconds" if containers.is_matroska_family(muxer) else "as the source's"


def _table(model: type[BaseModel], prefix: str) -> Iterator[str]:
    yield "| key | meaning | default | range |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        if not field.description:
            raise SystemExit(f"{prefix}{name} has no description")
        meaning = field.description.replace("|", "\\|")
        yield f"| `{prefix}{name}` | {meaning} | {_default(field)} | {_range(field)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, StrEnum):
        return f"`{value.value}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _range(field: FieldInfo) -> str:
    words = []
    for rule in field.metadata:
        words += _words(rule)
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        words.append(", ".join(f"`{member.value}`" for member in kind))
    if get_origin(kind) is Literal:
        words.append(", ".join(f"`{word}`" for word in get_args(kind)))
    if kind is bool:
        words.append("true, false")
    return " and ".join(words) or "-"


def _words(rule: Any) -> list[str]:
    named: tuple[tuple[type, str, str], ...] = (
        (Ge, "ge", "≥ {}"),
        (Gt, "gt", "> {}"),
        (Le, "le", "≤ {}"),
        (Lt, "lt", "< {}"),
        (MultipleOf, "multiple_of", "a multiple of {}"),
    )
    for kind, attribute, form in named:
        if isinstance(rule, kind):
            return [form.format(getattr(rule, attribute))]
    pattern = getattr(rule, "pattern", None)
    return [f"matches `{pattern}`".replace("|", "\\|")] if pattern else []


def main() -> int:
    """Write the file, or check it."""
    text = document()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
