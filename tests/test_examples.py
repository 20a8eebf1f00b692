"""The examples run, and show what they say that they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


def output_of(name: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert not list(folder.iterdir()), "an example leaves files behind"
    return done.stdout


def test_every_example_has_its_test() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    untested = [path.name for path in FILES if f'output_of("{path.name}"' not in own]
    assert FILES
    assert not untested


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"""')
    assert len(lines) <= 80


def test_one_line_change(tmp_path: Path) -> None:
    apart = re.findall(
        r"contributions (\S+) times apart", output_of("one_line_change.py", tmp_path)
    )
    assert len(apart) == 5
    assert all(float(ratio) < 1.5 for ratio in apart)


def test_missing_tasks(tmp_path: Path) -> None:
    lines = output_of("missing_tasks.py", tmp_path).splitlines()
    weights = [
        dict(
            zip(
                ("depth", "normals", "edges"),
                map(float, re.findall(r" (\d\.\d+)", line)),
                strict=True,
            )
        )
        for line in lines[:9]
    ]
    assert all(sum(step.values()) == pytest.approx(1, abs=2e-3) for step in weights)
    assert all((step["normals"] == 0) == (i % 3 == 1) for i, step in enumerate(weights))
    assert all(step["normals"] == 1 for step in weights[2::3])
    assert all(step["normals"] > 0 and step["depth"] > 0 for step in weights[::3])


def test_resume(tmp_path: Path) -> None:
    assert "parameters and weights equal: True" in output_of("resume.py", tmp_path)


def test_saturated_floor(tmp_path: Path) -> None:
    paper, defaults = output_of("saturated_floor.py", tmp_path).split("== ")[1:]
    assert "Saturated in 66.8 % of the steps" in paper
    assert ".048/.952" in paper
    assert "Saturated" not in defaults
    assert "equal in every step" in defaults


def test_sgd_scale(tmp_path: Path) -> None:
    found = {
        (optimizer, scale): float(loud)
        for optimizer, scale, loud in re.findall(
            r"(\w+) +scale=(\w+) +loud ([\d.]+)", output_of("sgd_scale.py", tmp_path)
        )
    }
    assert found["SGD", "simplex"] > 10 * found["SGD", "mean"]
    assert max(found["Adam", "simplex"], found["Adam", "mean"]) < 0.1


def test_own_rule(tmp_path: Path) -> None:
    weights = re.findall(r"a (\S+), b (\S+)\n", output_of("own_rule.py", tmp_path))
    assert weights == [("0.500", "0.500")] * 2 + [("0.333", "0.667")] * 2


def test_record_a_run(tmp_path: Path) -> None:
    output = output_of("record_a_run.py", tmp_path)
    assert '{"step": 0, "measured": true' in output
    assert "history.norms have the shape (100, 2)" in output
    assert "Under the weights used 'loud' pulled" in output


def test_turbofan_simulated(tmp_path: Path) -> None:
    output = output_of("turbofan_simulated.py", tmp_path, "8")
    assert re.search(r"simulated test engines: RMSE \d+\.\d cycles after 8 steps", output)
    assert "8 steps of 2 tasks (rul, health)." in output
