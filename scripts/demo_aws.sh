#!/usr/bin/env bash
# The farm on AWS without an account: `make demo-aws` or `make demo-aws MEDIA=~/Videos`.
# Originals are only read; renditions go to demo-out/aws-renditions.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN="${1:-.venv/bin}"
MEDIA="${2:-${MEDIA:-}}"
exec "$BIN/python" scripts/demo_aws.py --hevcq "$BIN/hevcq" --out "${OUT:-demo-out}" ${MEDIA:+--media "$MEDIA"}
