"""The tutorials run from top to bottom, hold their outputs, and say what their outputs say."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: Any) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


def number(pattern: str, text: str) -> float:
    found = re.findall(pattern, text)
    assert len(found) == 1, f"{pattern}: {found}"
    return float(found[0])


# --- what each of them claims in its prose ------------------------------------------------------


def contribution(text: str) -> None:
    """The numbers by hand, by autograd and by the balancer."""
    assert "contributions [2.5   0.005] imbalance 500.0" in text
    assert number(r"ratio +([\d.]+)\n", text) == pytest.approx(208.8, abs=0.05)
    weights = re.findall(r"'rul': (0\.0047\d+), 'health': (0\.995\d+)", text)
    assert len(weights) == 2
    assert float(weights[0][0]) == pytest.approx(float(weights[1][0]), rel=1e-5)
    assert "difference from the sum by hand below 1e-6: True" in text
    assert "shares [0.3333 0.3333 0.3333]" in text
    lengths = [float(x) for x in re.findall(r"length of \.grad +([\d.]+)", text)]
    assert lengths == sorted(lengths)
    assert lengths[1] > 20 * lengths[0]


def pinn(text: str) -> None:
    """Balance saves Poisson's equation, and harms Burgers'; the default harms it less."""
    uniform = [float(x) for x in re.findall(r"uniform +relative error +([\d.]+) %", text)]
    inverse = [float(x) for x in re.findall(r"inverse +relative error +([\d.]+) %", text)]
    assert uniform[0] > 100 > 20 > inverse[0]
    assert uniform[1] < 15 < inverse[1]
    assert uniform[1] < number(r"square root +relative error +([\d.]+) %", text) < inverse[1]
    assert uniform[1] < number(r"default +relative error +([\d.]+) %", text) < inverse[1] / 3
    boundary = [float(x) for x in re.findall(r"boundary +([\d.]+)\n", text)]
    assert boundary[0] > 500 * boundary[1]


def ten_tasks(text: str) -> None:
    """All readings are learnt with equal shares, and a probe finds the shares of the gradients."""
    means = [float(x) for x in re.findall(r" mean (-?[\d.]+)", text)]
    assert means[1] > means[0] + 0.2
    rows = re.findall(r"^(?:uniform|gaba) +(.+?) mean", text, re.MULTILINE)
    uniform, balanced = ([float(x) for x in row.split()] for row in rows)
    assert uniform[0] < 0.3
    assert min(balanced) > 0.6
    assert "measured by: probe" in text
    assert number(r"largest error of a share: ([\d.]+)", text) < 0.001


def turbofan(text: str) -> None:
    """The published method reaches its floor; the default's limit leaves less, and says so."""
    if "SIMULATED" in text:
        return
    assert "100 training engines, 20631 cycles" in text
    assert text.count("400 steps of 2 tasks (rul, health)") == 2
    paper, default = re.split(r"^(?=(?:Act|Watch|Fine)[:.])", text, flags=re.MULTILINE)[1:]
    assert paper.startswith("Act")
    assert "reached its minimum" in " ".join(paper.split())
    assert "Use: gaba.Balancer(tasks, shared, limit=1_000)\n" in default
    assert "no loss is multiplied or divided by more than 64" in " ".join(default.split())
    apart = [
        number(r"Contributions were ([\d.]+) times apart in", part) for part in (paper, default)
    ]
    assert apart[1] < apart[0] / 3
    assert "minimum" not in default
    errors = [float(x) for x in re.findall(r"RMSE +([\d.]+) cycles", text)]
    assert len(errors) == 2
    assert max(errors) < 25


CLAIMS: dict[str, Callable[[str], None]] = {
    "contribution": contribution,
    "pinn": pinn,
    "ten_tasks": ten_tasks,
    "turbofan": turbofan,
}


def test_each_has_its_claims() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(CLAIMS)


# --- as they are committed ----------------------------------------------------------------------


@each
def test_the_committed_outputs_are_whole(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2
    assert notebook.cells[0].source.startswith("# ")


@each
def test_the_file_is_small_and_names_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|usr|opt|Users)/", text)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", printed(read(path)))


@each
def test_the_committed_outputs_are_what_the_prose_says(path: Path) -> None:
    CLAIMS[path.stem](printed(read(path)))


@each
def test_links_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#\s]+)\)", prose)
    assert targets
    for target in targets:
        assert "://" in target or (path.parent / target).exists(), target


# --- run again ----------------------------------------------------------------------------------


def run_again(path: Path, folder: Path) -> Any:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    copy = Path(shutil.copy(path, folder))
    done = subprocess.run(
        [sys.executable, str(FOLDER / "execute.py"), str(copy)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython")},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return read(copy)


def same_program(left: Any, right: Any) -> bool:
    return [c.source for c in left.cells] == [c.source for c in right.cells]


def test_the_short_one_runs_and_prints_the_same_again(tmp_path: Path) -> None:
    path = FOLDER / "contribution.ipynb"
    again, committed = run_again(path, tmp_path), read(path)
    assert same_program(again, committed)
    contribution(printed(again))
    plain = re.compile(r"-?\d+\.\d+")
    numbers = [[float(x) for x in plain.findall(printed(n))] for n in (again, committed)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pinn", "ten_tasks", "turbofan"])
def test_a_longer_one_runs_and_shows_the_same_again(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.ipynb"
    again = run_again(path, tmp_path)
    assert same_program(again, read(path))
    CLAIMS[name](printed(again))
