"""Run every benchmark, or those whose name holds one of the given words: `python -m benchmarks [WORD…]`."""

import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the benchmarks one after another; 1 if one missed its limit."""
    words = sys.argv[1:]
    missed = []
    print(
        f"{platform.machine()}, {platform.python_version()}; ratios are medians of interleaved runs"
    )
    for script in sorted(HERE.glob("*_bench.py")):
        if words and not any(word in script.stem for word in words):
            continue
        print(f"\n== {script.stem}", flush=True)
        if subprocess.run([sys.executable, str(script)], cwd=HERE.parent, check=False).returncode:
            missed.append(script.stem)
    print(f"\nmissed: {', '.join(missed) if missed else 'none'}; JSON in benchmarks/out/")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
