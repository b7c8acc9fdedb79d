"""What a container starts: `hevcq worker` for the profiles named in HEVCQ_PROFILES."""

import os
import sys

from hevcq.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["worker", *os.environ.get("HEVCQ_PROFILES", "").split()]
    sys.exit(main())
