"""An ffmpeg that makes grey pictures: jobs wait with the sentence of the gate, until it is mended."""

import json
import shutil
import time

from e2e.embedded.farm import PATIENCE_S, Farm

GREY = """#!/bin/sh
case "$*" in *libx265*) ;; *) exec {real} "$@";; esac
n=$#
while [ $n -gt 0 ]; do
  a=$1; shift; n=$((n-1))
  [ "$a" = -c:0 ] && set -- "$@" -filter:0 lutyuv=y=128
  set -- "$@" "$a"
done
exec {real} "$@"
"""
SAYS = "ffmpeg cannot make the profile hevc on this machine: "


def overview(farm: Farm) -> dict:
    return json.loads(farm.run("status", "--json").out)


def hevc(farm: Farm) -> dict:
    return next(queue for queue in overview(farm)["queues"] if queue["profile"] == "hevc")


def waits(farm: Farm) -> list[str]:
    return [shut["reason"] for shut in overview(farm)["closed"]]


def test_jobs_wait_for_an_ffmpeg_that_can_and_go_on_once_it_is_mended(farm: Farm) -> None:
    program, real = farm.folder / "ffmpeg", shutil.which("ffmpeg")
    program.write_text(GREY.format(real=real))
    program.chmod(0o755)
    environment = {"HEVCQ_FFMPEG": str(program)}
    other = (farm.folder / "profiles" / "hevc.yaml").read_text().replace("hevc", "h264")
    (farm.folder / "profiles" / "h264.yaml").write_text(other.replace("[h264]", "[]"))
    for name in ("a.mp4", "b.mp4"):
        farm.clip(name)

    ran = farm.ingest("--profile", "hevc", "--profile", "h264", env=environment)

    assert ran.code == 4, ran.err
    assert SAYS in ran.err
    assert "G8" in ran.err
    assert hevc(farm)["jobs"]["queued"] == 2
    assert len(list(farm.media.glob("*.h264.mp4"))) == 2  # what ffmpeg can make is served
    checked = farm.run("doctor", env=environment)
    assert checked.code == 4
    assert SAYS in " ".join(checked.out.split())

    worker = farm.start("worker", env=environment)
    deadline = time.monotonic() + PATIENCE_S
    while not waits(farm) and time.monotonic() < deadline:
        time.sleep(0.2)
    (reason,) = waits(farm)
    assert reason.startswith(SAYS)

    program.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    while (found := hevc(farm))["jobs"]["done"] < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (found["jobs"]["done"], found["dead_letters"]) == (2, 0)
    assert waits(farm) == []
    worker.terminate()
