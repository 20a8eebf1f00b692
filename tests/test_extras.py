"""Each extra, installed alone from the wheel, does what it is for."""

from __future__ import annotations

from importlib.metadata import metadata
from pathlib import Path

import pytest

from _extra_uses import EXAMPLES, USES
from _installs import ROOT, Built, environment, succeed

ELSEWHERE = {"dev", "flwr"}
"""Everything at once, and Flower, which has its own environment."""


def test_every_extra_has_its_use() -> None:
    assert set(metadata("gaba").get_all("Provides-Extra") or []) == set(USES) | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("extra", USES)
def test_an_extra_alone_does_what_it_is_for(extra: str, made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made, extra)
    assert "works" in succeed(python, ROOT / "tests" / "_extra_uses.py", extra, cwd=tmp_path)
    if extra in EXAMPLES:
        succeed(python, ROOT / "examples" / EXAMPLES[extra], cwd=tmp_path)
