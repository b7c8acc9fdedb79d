"""Run the command line as `python -m hevcq`."""

import sys

from hevcq.cli.main import main

sys.exit(main())
