"""The full decode of a rendition: what it asks for, and that silence is no pass."""

import threading
from types import SimpleNamespace

from hevcq.domain.profile_sections import Bounds
from hevcq.ffmpeg.process.child import Finished
from hevcq.ffmpeg.run.messages import decode_errors
from hevcq.ffmpeg.verify import decode as verify_decode
from support.fakes.encoder import INFO


def test_the_full_decode_asks_for_every_picture_and_every_sound(monkeypatch, tmp_path):
    seen = []

    def stream_child(argv, **_):
        seen.append(argv)
        return Finished(0, b"", (), 0.1, 0.1)

    monkeypatch.setattr(verify_decode, "stream_child", stream_child)
    recipe = SimpleNamespace(bounds=Bounds())
    request = SimpleNamespace(output=tmp_path / "x.mkv", info=INFO, profile=recipe)
    verify_decode.decode_problems(
        SimpleNamespace(ffmpeg="ffmpeg", sandboxed=False),
        request,
        threading.Event(),
        None,
        deadline_s=1,
    )

    (argv,) = seen
    maps = [argv[place + 1] for place, word in enumerate(argv) if word == "-map"]
    assert maps == ["0:v?", "0:a?"]
    assert "-threads" not in argv


def test_a_decoder_that_fails_without_a_word_is_a_complaint():
    assert decode_errors((), 0) == ()
    assert decode_errors((), 69) == ("decoding ended with exit code 69",)
