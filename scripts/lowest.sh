#!/usr/bin/env bash
# Install the lowest version of each direct dependency that pyproject.toml allows, and run a short suite.
# usage: scripts/lowest.sh PYTHON TOOLS
set -euo pipefail
python=$1 tools=$2 venv=.venv-lowest wanted=build/lowest.txt

if ! [ -x "$tools/bin/uv" ]; then
  "$python" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --require-hashes --requirement requirements/tools.txt
fi
mkdir -p build
"$tools/bin/uv" pip compile --quiet --resolution lowest-direct --only-binary :all: \
  --python-version 3.11 --generate-hashes pyproject.toml --output-file "$wanted"
"$tools/bin/uv" pip compile --quiet --python-version 3.11 --generate-hashes --only-binary :all: \
  --constraints "$wanted" pyproject.toml requirements/build.in --extra dev --output-file build/lowest-dev.txt
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --require-hashes --requirement build/lowest-dev.txt
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
grep -oE '^[a-z0-9_.-]+==[^ ;]+' "$wanted"
"$venv/bin/python" -m pytest -q -n "${TESTERS:-2}" -m "not slow and not media and not terraform" \
  tests/settings tests/util tests/cli tests/domain/test_certificate.py tests/contracts tests/backends/aws
