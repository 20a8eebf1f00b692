"""``python -m gaba`` is the command ``gaba``."""

import sys

from gaba.cli import main

if __name__ == "__main__":
    sys.exit(main())
