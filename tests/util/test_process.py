"""A process that holds keys is closed to the others of its user."""

import subprocess
import sys
from pathlib import Path

LOOK = """
import os
from hevcq.util.host import close_to_others, is_closed
before = is_closed()
close_to_others(os.environ)
with open("/proc/self/fd/0"):
    pass
print(before, is_closed(), os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["LANG"])
print(os.getenv("AWS_SESSION_TOKEN") == "")
try:
    print(open("/proc/self/environ", "rb").read())
except PermissionError:
    print("closed even to itself")
"""


def test_what_the_kernel_shows_of_the_environment_holds_no_keys_and_the_process_still_has_them():
    source = str(Path(__file__).parents[2] / "src")
    keys = {"AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_SESSION_TOKEN": "", "MY_TOKEN": "hidden"}
    for name in ("HEVCQ_NOTIFY", "HEVCQ_WEBHOOK", "HEVCQ_MEDIA_SERVER", "HEVCQ_WEB__SESSION_KEY"):
        keys[name] = f"hidden in {name}"

    ran = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**keys, "LANG": "C.UTF-8", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )

    told, empty, shown = ran.stdout.splitlines()
    assert told == "False True very-secret C.UTF-8"
    assert empty == "True"
    assert "very-secret" not in shown
    assert "hidden" not in shown
    assert "LANG=C.UTF-8" in shown or "closed" in shown
