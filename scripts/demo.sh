#!/usr/bin/env bash
# Run the main job on a few clips and end with a table: `make demo` or `make demo MEDIA=~/Videos`.
# Originals are never touched: renditions go to demo-out/, and so do hevcq's own records.
set -euo pipefail
cd "$(dirname "$0")/.."
HEVCQ="${HEVCQ:-.venv/bin/hevcq}"
OUT="${OUT:-demo-out}"
exec "$(dirname "$HEVCQ")/python" scripts/demo.py --hevcq "$HEVCQ" --out "$OUT" ${MEDIA:+--media "$MEDIA"}
