"""``python -m gaba`` is the command ``gaba``."""

from gaba.cli import main

if __name__ == "__main__":
    main()
