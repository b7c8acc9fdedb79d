#!/usr/bin/env bash
# Install the lowest version of each direct dependency that pyproject.toml allows, the extras
# included, and run the tests of the rooms that meet them: settings, commands, page, remotes, metrics
# and logs, and every backend's promises (boto3 against an emulator). No encode, no browser.
# usage: scripts/lowest.sh PYTHON TOOLS
set -euo pipefail
python=$1 tools=$2 venv=.venv-lowest wanted=build/lowest.txt

if ! [ -x "$tools/bin/uv" ]; then
  "$python" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --require-hashes --requirement requirements/tools.txt
fi
mkdir -p build
"$tools/bin/uv" pip compile --quiet --resolution lowest-direct --only-binary :all: --python-version 3.11 \
  --extra web --generate-hashes pyproject.toml --output-file "$wanted"
"$tools/bin/uv" pip compile --quiet --python-version 3.11 --generate-hashes --only-binary :all: \
  --constraints "$wanted" pyproject.toml requirements/build.in --extra dev --output-file build/lowest-dev.txt
"$python" -m venv --clear "$venv"
"$tools/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes --requirement build/lowest-dev.txt
"$tools/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
grep -oE '^[a-z0-9_.-]+==[^ ;]+' "$wanted"
# Old versions use what newer ones of their own dependencies call deprecated; two documents are
# written by pydantic of the locked version.
timeout "${SECONDS_AT_MOST:-1200}" "$venv/bin/python" -m pytest -q -n "${TESTERS:-2}" --dist worksteal \
  -p no:cacheprovider -W ignore::DeprecationWarning -m "not slow and not media and not terraform" \
  tests/settings tests/util tests/cli tests/ops tests/web tests/remotes tests/contracts tests/domain/test_certificate.py \
  --ignore tests/web/test_browser.py \
  --deselect tests/web/test_api.py::test_the_description_in_the_docs_is_that_of_the_code \
  --deselect "tests/cli/test_profiles.py::test_what_is_written_from_the_program_is_up_to_date[write_profiles_doc]"
