"""The damage campaign in short: nothing that lost packets or frames is accepted."""

import shutil
import threading
from pathlib import Path

import pytest

from chaos.damage import Findings, clean_sources, inputs, outputs, prepare, report
from chaos.damage_judge import ENCODER, judge, profile, run
from hevcq.errors import SourceDamaged
from support.clips import ffmpeg
from support.once import made_once


def test_no_damaged_input_or_output_is_accepted_with_a_loss_and_no_clean_one_is_refused(tmp_path):
    found = Findings()
    ready = prepare(tmp_path, found, real=False)
    clean_sources(1, 3, tmp_path, found)
    found.inputs += inputs(ready, 8, 3, tmp_path, stride=13)
    found.outputs += outputs(ready, 10, 3, tmp_path, stride=13)

    assert found.unsafe() == [], report(found)
    assert found.alarms == []
    caught = [case for case in (*found.inputs, *found.outputs) if case.verdict == "caught"]
    assert len(caught) >= 10, report(found)
    assert all(case.detail for case in caught)


PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=1.2")


SOUND = ("-f", "lavfi", "-i", "anoisesrc=duration=1.2:amplitude=0.2:seed=7")


H264 = ("-c:v", "libx264", "-preset", "superfast", "-g", "20")


def stream(folder: Path, *options: str, name: str = "video.ts") -> Path:
    def make(path: Path) -> None:
        ffmpeg(*PICTURE, *SOUND, *H264, "-c:a", "mp2", *options, path)

    made = made_once(("stream", options), make, Path(name).suffix)
    return Path(shutil.copyfile(made, folder / name))


def preflight(path: Path) -> None:
    stop = threading.Event()
    info = ENCODER.probe(str(path), stop=stop)
    ENCODER.preflight(str(path), info, profile(), stop=stop)


@pytest.mark.parametrize("make", [(), ("-mpegts_m2ts_mode", "1")], ids=["188", "192"])
def test_a_recording_that_ends_inside_a_packet_was_cut(tmp_path, make):
    # Given a recording cut where ffmpeg's demuxer finds nothing to complain of
    path = stream(tmp_path, *make)
    preflight(path)
    content, length = path.read_bytes(), 192 if make else 188

    # When it is cut inside a packet, then that is said; a cut between two is a shorter recording
    whole = len(content) // length * 7 // 10 * length
    path.write_bytes(content[: whole + 100])
    with pytest.raises(SourceDamaged, match="ends inside a packet"):
        preflight(path)


@pytest.mark.parametrize("codec", ["mp2", "ac3"])
def test_a_sound_copied_from_a_recording_must_keep_its_bytes(tmp_path, codec):
    # Given a clean rendition of a transport stream
    source = stream(tmp_path, "-c:a", codec)
    made = run(source, tmp_path / "made.mkv", profile())
    assert made.step == "", made.reason
    assert made.request is not None

    # When its sound is replaced by another of the same times, which decodes without complaint
    other = stream(tmp_path, "-c:a", codec, "-af", "areverse", name="other.ts")
    spoilt = tmp_path / "spoilt.mkv"
    copied = ("-map", "0:v", "-map", "1:a", "-c", "copy", "-map_metadata", "0")
    ffmpeg("-i", made.request.output, "-i", other, *copied, spoilt)
    spoilt.replace(made.request.output)

    # Then a gate finds it
    found = judge(made.request)
    assert found.step == "G5"
    assert found.reason.endswith("its bytes are not those of the source")
