"""The first change that CONTRIBUTING.md shows applies to the repository as it is, and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOWN = re.search(
    r"^```diff\n(.*?)^```$",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
RULE = "src/gaba/rules/damped.py"
TEST = "tests/rules/test_damped.py"


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of what the change touches, with the change."""
    assert SHOWN is not None
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("src", "tests/rules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    for path in (*(ROOT / "tests").glob("_*.py"), ROOT / "docs/how-to-choose.md"):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "first.diff").write_text(SHOWN[1], encoding="utf-8")
    run(tmp_path, "git", "apply", "first.diff")
    return tmp_path


def test_the_first_change_passes_its_tests_and_the_layout(changed: Path) -> None:
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--doctest-modules", "-rA")
    said = run(changed, *pytest_, "-k", "damped", RULE, "tests/rules")
    assert f"PASSED {RULE}::" in said
    for name in (TEST, "tests/rules/test_norm_rules.py"):
        assert len(re.findall(rf"^PASSED {re.escape(name)}::.*damped", said, re.MULTILINE)) > 10
    diff = (changed / "first.diff").read_text(encoding="utf-8")
    new = re.findall(r"^\+\+\+ b/(\S+\.py)$", diff, re.MULTILINE)
    assert {RULE, TEST} <= set(new)
    for words in (("check",), ("format", "--check")):
        run(changed, sys.executable, "-m", "ruff", *words, *new)
    code = "import gaba; print(gaba.__file__, gaba.methods.get('damped-inverse').rule)"
    assert run(changed, sys.executable, "-c", code).startswith(str(changed))
