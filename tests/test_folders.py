"""Where gaba runs from, where data are looked for, and the command that adds an extra."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gaba import extras, folders

ROOT = Path(__file__).parents[1]
SAY = "from gaba.extras import install; print(install('cli', 'turbofan'))"


def said_by(package: Path, cwd: Path) -> str:
    """The command, by a copy of the two files in the folder ``package``."""
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("extras.py", "folders.py"):
        shutil.copy(ROOT / "src" / "gaba" / name, package)
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); {SAY}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_from_a_clone_the_clone_is_installed(tmp_path: Path) -> None:
    clone, elsewhere = tmp_path / "a clone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    said = said_by(clone / "src" / "gaba", elsewhere)
    assert said == f'pip install -e "{clone}[cli,turbofan]"'
    shutil.rmtree(clone / "src")
    assert said_by(clone / "src" / "gaba", clone) == 'pip install -e ".[cli,turbofan]"'


@pytest.mark.parametrize("place", ["lib/python3.12/site-packages/gaba", "vendored/gaba"])
def test_installed_it_is_the_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "pyproject.toml").touch()  # of the user's own project
    assert said_by(tmp_path / place, tmp_path) == 'pip install "gaba[cli,turbofan]"'


def test_the_tests_run_from_this_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folders.source_tree() == ROOT.resolve()
    monkeypatch.chdir(ROOT)
    assert extras.install("cli") == 'pip install -e ".[cli]"'


def test_an_import_that_fails_otherwise_fails_as_it_is() -> None:
    with pytest.raises(ImportError, match="cannot import name"), extras.needs("x", "cli", "json"):
        from json import no_such_name  # pyright: ignore[reportAttributeAccessIssue]  # noqa: F401


def test_data_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(folders.ENVIRONMENT, raising=False)
    root = ROOT.resolve()
    assert folders.places(None) == [
        Path("data"),
        root / "data",
        Path("../shared/data"),
        root / "../shared/data",
    ]
    monkeypatch.setenv(folders.ENVIRONMENT, "named")
    assert folders.places(None) == [Path("named")]
    assert folders.places("given") == [Path("given")]
