"""The benchmark of the live page runs, and writes its page; what it measures is not tested."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from _python import PYTHON

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "live.py"


@pytest.mark.slow
def test_the_benchmark_of_the_live_page(tmp_path: Path) -> None:
    if not Path(os.environ.get("CHROMIUM", "/usr/bin/chromium")).exists():
        pytest.skip("no Chromium")
    command = [*PYTHON, str(SCRIPT), "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    found = json.loads((tmp_path / "live.json").read_text())
    assert [result["steps"] for result in found] == [500, 3000]
    for result in found:
        assert all(value > 0 for value in result.values())
        assert result["server_peak"] >= result["server_before"]
    page = (tmp_path / "live.md").read_text()
    assert "**A trial run: not to be cited.**" in page
    figures = set(found[0]) - {"steps", "megabytes"}  # these are the heading
    assert page.count("\n| ") == len(figures) + 2
