"""``python -P -m stabdeq.checker``."""

import sys

from .door import main

sys.exit(main(sys.argv[1:]))
