"""Where a framework is not installed, one line says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = {
    "lightning": ("lightning", "lightning"),
    "transformers": ("transformers", "transformers"),
    "accelerate": ("accelerate", "accelerate"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "torchjd": ("torchjd", "bench"),
}
CODE = """
import importlib, sys
for module, package in [line.split() for line in sys.argv[1:]]:
    sys.modules[package] = None
    try:
        importlib.import_module("gaba.integrations." + module)
    except ImportError as error:
        print(error)
"""


def test_an_absent_framework_is_one_line_that_names_the_extra() -> None:
    pairs = [f"{module} {package}" for module, (package, _) in EXTRAS.items()]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *pairs], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(EXTRAS)
    for line, (package, extra) in zip(lines, EXTRAS.values(), strict=True):
        assert package in line
        assert line.endswith(f'pip install "gaba[{extra}]"')
