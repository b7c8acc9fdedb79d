"""Run the command line as `python -m hevcq`."""

import sys

from hevcq.front import main

sys.exit(main())
