"""Where a framework is not installed, one line says which extra brings it; and only there."""

from __future__ import annotations

import subprocess
import sys

from gaba.extras import install

EXTRAS = {
    "lightning": ("lightning", "lightning"),
    "transformers": ("transformers", "transformers"),
    "accelerate": ("accelerate", "accelerate"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "torchjd": ("torchjd", "bench"),
}
CODE = """
import importlib, sys
for module, absent in [line.split() for line in sys.argv[1:]]:
    sys.modules[absent] = None
    try:
        importlib.import_module("gaba.integrations." + module)
    except ImportError as error:
        print(error)
"""
BROKEN = {
    "lightning": "lightning.fabric",
    "transformers": "transformers.trainer",
    "accelerate": "accelerate.accelerator",
    "tensorboard": "tensorboard.compat",
    "torchjd": "torchjd.linalg",
}
"""A part of each framework, without which its import fails."""


def said(pairs: dict[str, str]) -> list[str]:
    """What importing each integration prints where a module is missing."""
    lines = [f"{module} {absent}" for module, absent in pairs.items()]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *lines], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_an_absent_framework_is_one_line_that_names_the_extra() -> None:
    lines = said({module: package for module, (package, _) in EXTRAS.items()})
    assert len(lines) == len(EXTRAS)
    for line, (package, extra) in zip(lines, EXTRAS.values(), strict=True):
        assert f"{package}, which is not installed" in line
        assert line.endswith(install(extra))


def test_a_framework_that_is_installed_but_broken_is_not_called_absent() -> None:
    lines = said(BROKEN)
    assert len(lines) >= len(BROKEN)
    assert not any("which is not installed" in line for line in lines)
