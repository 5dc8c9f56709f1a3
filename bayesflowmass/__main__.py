"""``python -m bayesflowmass <verb>``."""

import sys

from bayesflowmass.cli import main

sys.exit(main())
