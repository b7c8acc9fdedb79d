#!/usr/bin/env bash
# Renew requirements/*.txt: every package with its version and hashes, for every platform.
# Keeps the versions that are locked already where they still fit; UPGRADE=1 takes the newest.
# usage: scripts/lock.sh PYTHON TOOLS
set -euo pipefail
python=$1 tools=$2

if ! [ -x "$tools/bin/uv" ]; then
  "$python" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --require-hashes --requirement requirements/tools.txt
fi
compile() {
  "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
    ${UPGRADE:+--upgrade} "$@"
}
compile requirements/build.in --output-file requirements/build.txt
compile pyproject.toml --extra web --extra postgres --output-file requirements/runtime.txt
compile pyproject.toml requirements/build.in --extra dev \
  --constraints requirements/runtime.txt --constraints requirements/build.txt \
  --output-file requirements/dev.txt
compile requirements/emulator.in --constraints requirements/dev.txt --output-file requirements/emulator.txt
compile requirements/tools.in --output-file requirements/tools.txt
