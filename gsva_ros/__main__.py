"""`python -m gsva_ros` is `gsva`: what accelerate launches in several processes."""

import sys

from .cli import main

sys.exit(main())
