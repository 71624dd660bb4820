"""`python -m nivp_dist`: the command line."""

import sys

from nivp_dist.cli import main

sys.exit(main())
