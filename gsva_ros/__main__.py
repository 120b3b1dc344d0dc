"""`python -m gsva_ros` is `gsva`, so that accelerate can launch it in several processes."""

import sys

from .cli import main

sys.exit(main())
