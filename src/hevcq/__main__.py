"""Run the command line as `python -m hevcq`."""

import os
import sys

# `python -m` puts the current folder first, where a module of a download would be imported.
if not sys.flags.safe_path and sys.path and sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109 - before anything else is imported
    del sys.path[0]

from hevcq.cli.main import main

sys.exit(main())
