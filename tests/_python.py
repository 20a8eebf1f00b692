"""How tests call the interpreter: a warning is an error there too.

`make test-oldest` sets PYTHONWARNINGS to another policy.
"""

from __future__ import annotations

import os
import sys

PYTHON = (sys.executable, "-W", os.environ.get("PYTHONWARNINGS", "error"))
