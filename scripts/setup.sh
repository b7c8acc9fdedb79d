#!/usr/bin/env bash
# Make the virtual environment with the package in it, and install ffmpeg where it is missing.
# usage: scripts/setup.sh PYTHON VENV
set -euo pipefail
python=$1 venv=$2

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
install_debian() {
  command -v apt-get >/dev/null && can_be_root &&
    as_root apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v ffmpeg >/dev/null || ! command -v ffprobe >/dev/null; then
  install_debian ffmpeg || {
    echo "hevcq needs ffmpeg and ffprobe (5.1 or newer, with libx265): install your system's 'ffmpeg' package, then run this again." >&2
    exit 1
  }
fi
if ! "$python" -m venv "$venv" 2>/dev/null; then
  install_debian python3-venv && "$python" -m venv "$venv" || {
    echo "hevcq needs Python's venv module: install your system's 'python3-venv' package, then run this again." >&2
    exit 1
  }
fi
# Versions and hashes of requirements/dev.txt (make lock renews it); then hevcq itself, editable.
# Compiled is what is imported, when it is: all of it would be 20 s of CPU.
"$venv/bin/python" -m pip install --quiet --no-compile --require-hashes --requirement requirements/dev.txt
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
# For the browser tests of make test, which are skipped without it; never asks for a password. The
# Chromium without windows is the cheaper one.
if [ ! -x /usr/bin/chromium-headless-shell ] && [ ! -x /usr/bin/chromium ] && [ "$(id -u)" = 0 ]; then
  install_debian chromium-headless-shell || install_debian chromium ||
    echo "chromium could not be installed: the browser tests will be skipped." >&2
fi
# For the tests of PostgreSQL, likewise; the tests start a server of their own, so none is made here.
if [ "$(id -u)" = 0 ] && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
  mkdir -p /etc/postgresql-common
  echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  install_debian -o Dpkg::Options::=--force-confold postgresql ||
    echo "postgresql could not be installed: its tests will be skipped." >&2
fi
