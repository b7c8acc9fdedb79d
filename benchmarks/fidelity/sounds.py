"""Sounds that are encoded honestly, of which none may be refused, and wrong ones, of which none may pass.

Both are judged by the levels that gate G8 compares: real sounds and made ones through eight encoders, and
the sound of a film spoilt in forty ways that can be heard in it.
"""

from pathlib import Path


from benchmarks.fidelity.trial import Figure
from hevcq.domain.media.facts import AudioFacts, Stream, StreamKind
from hevcq.ffmpeg.command.levels import SoundShape, output_levels
from hevcq.ffmpeg.verify.sound import SoundTrack, sound_problem
from support.clips import MEDIA, ffmpeg

FILM = "bbb-480p24-30s.mp4"
SHAPES = {1: "mono", 2: "stereo", 6: "5.1"}
REAL = {
    "gopro-480p30-tmcd-gpmd.mp4": 2, FILM: 6, "bbb-1080p24-15s.mp4": 6, "android-720p30-rot180.mp4": 2,
    "flir-portrait-vfr-bframes.mp4": 1, "iphone-320p-rot90-mebx.mov": 1, "sub-ass.mkv": 1,
    "iphone-hevc-dovi-editlist-mebx.mp4": 2, "nasa-2video-2audio-2sub.mp4": 2, "phone-720p30.mp4": 2,
    "phone-720p-vfr-rot180.mp4": 1, "traffic-432p12.mp4": 2,
}  # fmt: skip
DECAYS = "0.2*sin(2*PI*{0}*t)*exp(-3*mod(t,0.5))+0.1*sin(2*PI*{1}*t)*exp(-5*mod(t,0.25))"
MADE = {
    "white noise": ("anoisesrc=r=44100:a=0.2:d=12", 1),
    "pink noise": ("anoisesrc=c=pink:r=48000:a=0.3:d=12", 1),
    "soft noise": ("anoisesrc=c=pink:r=48000:a=0.003:d=10", 1),
    "chords": (f"aevalsrc='{DECAYS.format(220, 1760)}|{DECAYS.format(330, 2217)}':s=48000:d=12", 2),
    "sweep": ("aevalsrc='0.4*sin(2*PI*(50*t+300*t*t))':s=48000:d=12", 1),
    "clicks": ("aevalsrc='0.8*sin(2*PI*900*t)*exp(-60*mod(t,0.4))':s=44100:d=12", 1),
    "tone": ("sine=f=1000:r=48000:d=10", 1),
    "beeps": ("sine=f=440:r=48000:d=12,volume=0:enable='gt(mod(t,1),0.3)'", 1),
    "silence": ("anullsrc=r=48000:cl=stereo,atrim=end=8", 2),
    "murmur": ("anoisesrc=c=brown:r=16000:a=0.8:d=14,tremolo=f=1.7:d=0.9", 1),
}
ENCODERS = {
    "aac 48": ("aac", 48, "mp4"), "aac 64": ("aac", 64, "mp4"), "aac 96": ("aac", 96, "mp4"),
    "opus 48": ("libopus", 48, "webm"), "opus 64": ("libopus", 64, "mkv"), "mp2": ("mp2", 96, "mkv"),
    "vorbis": ("libvorbis", 0, "ogg"), "mp3": ("libmp3lame", 64, "avi"),
}  # fmt: skip
"""Encoders with kbit/s for each channel; Vorbis has the quality that profiles give it."""
BOTH, GONE = "pan=stereo|", "volume=0:enable="
WRONG = {
    "silent": "volume=0", "muted 1 s": f"{GONE}'between(t,15,16)'", "muted 300 ms": f"{GONE}'between(t,15,15.3)'",
    "muted from 15 s": f"{GONE}'gt(t,15)'", "dropouts": f"{GONE}'lt(mod(t,1),0.25)'",
    "left muted": f"{BOTH}c0=0*c0|c1=c1", "right muted": f"{BOTH}c0=c0|c1=0*c1",
    "swapped": f"{BOTH}c0=c1|c1=c0", "left on both": f"{BOTH}c0=c0|c1=c0", "right on both": f"{BOTH}c0=c1|c1=c1",
    "mono": f"{BOTH}c0=0.5*c0+0.5*c1|c1=0.5*c0+0.5*c1", "sides only": f"{BOTH}c0=0.5*c0-0.5*c1|c1=0.5*c1-0.5*c0",
    "right inverted": f"{BOTH}c0=c0|c1=-1*c1", "left inverted": f"{BOTH}c0=-1*c0|c1=c1",
    "right -3 dB": f"{BOTH}c0=c0|c1=0.7*c1", "right 10 ms late": "adelay=0|10",
    "-12 dB": "volume=-12dB", "-6 dB": "volume=-6dB", "-3 dB": "volume=-3dB", "+3 dB": "volume=3dB",
    "+12 dB, clipped": "volume=12dB,aformat=sample_fmts=s16", "fades": "afade=t=out:d=30",
    "fades late": "afade=t=out:st=15:d=15",
    "reversed": "areverse", "40 ms early": "atrim=start=0.04,asetpts=PTS-STARTPTS", "40 ms late": "adelay=40:all=1",
    "100 ms late": "adelay=100:all=1", "500 ms late": "adelay=500:all=1", "1 % slow": "atempo=0.99",
     "4 % fast": "asetrate=50000",
    "1 s cut out": "aselect='not(between(t,15,16))',asetpts=N/SR/TB", "ends at 29 s": "atrim=end=29",
    "1 s twice": "aloop=loop=1:size=48000:start=720000,atrim=end=30", "begins at 1 s": f"{GONE}'lt(t,1)'",
    "low-pass 1.5 kHz": "lowpass=f=1500,lowpass=f=1500", "low-pass 3 kHz": "lowpass=f=3000,lowpass=f=3000",
    "high-pass 500 Hz": "highpass=f=500,highpass=f=500", "telephone": "highpass=f=300,lowpass=f=3400",
    "echo": "aecho=0.8:0.8:120:0.5", "reverberation": "aecho=0.8:0.9:60|90|150:0.5|0.4|0.3",
    "tremolo": "tremolo=f=4:d=0.7",
    "compressed": "acompressor=threshold=0.02:ratio=9:attack=5:release=50:makeup=4",
    "gate": "agate=threshold=0.05:ratio=9",
    "hum": "volume=1[y];sine=f=100:r=48000:d=30,volume=0.5[x];[y][x]amix=normalize=0",
    "noise": "volume=1[y];anoisesrc=a=0.05:r=48000:d=30[x];[y][x]amix=normalize=0",
    "halves swapped": "asplit[a][b];[a]atrim=start=15,asetpts=PTS-STARTPTS[c];[b]atrim=end=15[e];[c][e]concat=v=0:a=1",
}  # fmt: skip


def levels(path: Path, count: int) -> Path:
    """Decode a sound to its levels, as gate G4 does."""
    target = path.with_name(f"{path.name}.levels")
    facts = AudioFacts(channels=count, layout=SHAPES[count], sample_rate=48_000)
    stream = Stream(index=0, kind=StreamKind.AUDIO, codec="", audio=facts)
    ffmpeg("-y", "-i", path, *output_levels(stream, target))
    return target


def sources(folder: Path) -> dict[str, tuple[Path, int]]:
    """Write each sound as it is compared: whole numbers, from 0 on."""
    found = {}
    for name, (graph, count) in MADE.items():
        found[name] = folder / f"{name}.mkv", count
        ffmpeg("-y", "-filter_complex", graph, "-c:a", "pcm_s16le", found[name][0])
    for name, count in {**REAL, "film in stereo": 2}.items():
        path = MEDIA / (FILM if name not in REAL else name)
        if path.is_file():
            found[name] = folder / f"{name}.mkv", count
            ffmpeg("-y", "-i", path, "-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", count,
                   "-map_metadata", "-1", "-c:a", "pcm_s16le", found[name][0])  # fmt: skip
    return found


def figure(folder: Path, words: tuple[str, ...] = ()) -> Figure:
    """Judge honest and wrong sounds; print those that are judged wrongly."""
    asked = {n: s for n, s in sources(folder).items() if not words or any(w in n for w in words)}
    honest = refused = wrong = passed = 0
    for name, (path, count) in asked.items():
        there, shape = levels(path, count), SoundShape(count, SHAPES[count])
        tried = [
            (e, "anull", each)
            for e, each in ENCODERS.items()
            if count <= 2 or each[0] not in {"mp2", "libmp3lame"}
        ]
        spoilt = WRONG if name == "film in stereo" else {}
        for what, graph, (encoder, kbps, suffix) in (
            *tried,
            *((w, g, ENCODERS["aac 64"]) for w, g in spoilt.items()),
        ):
            made = folder / f"made.{suffix}"
            rate = ["-b:a", f"{kbps * count}k"] if kbps else ["-q:a", "5"]
            mixed = f"[0:a]{graph},aresample=48000,aformat=channel_layouts={SHAPES[count]}"
            ffmpeg("-y", "-i", path, "-filter_complex", mixed, "-c:a", encoder, *rate, made)
            problem = sound_problem(there, levels(made, count), SoundTrack(shape, suffix))
            if what in spoilt:
                wrong, passed = wrong + 1, passed + (not problem)
            else:
                honest, refused = honest + 1, refused + bool(problem)
            if bool(problem) is (what not in spoilt):
                print(f"{name}, {what}: {problem or 'passed'}")
    value = f"{refused} of {honest} honest ones refused, {passed} of {wrong} wrong ones passed"
    return Figure("sounds", value, "0 and 0", refused == passed == 0)
