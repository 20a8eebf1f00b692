"""The pictures of a history show what it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import gaba
from _web_records import read, step_lines, write
from gaba.extras import install
from gaba.record import plots

ALL: dict[str, Callable[..., plots.Picture]] = {
    name: getattr(plots, name) for name in plots.__all__ if name != "Picture"
}
TASKS = ("a", "b", "c")


def history(tmp_path: Path, count: int, cosines: bool = True) -> gaba.History:
    return read(write(tmp_path / "run.jsonl", step_lines(count, TASKS, cosines=cosines), TASKS))


@pytest.mark.parametrize(("count", "dark"), [(1, False), (700, True)])
@pytest.mark.parametrize("name", ALL)
def test_a_picture_is_drawn_of_any_history(
    name: str, count: int, dark: bool, tmp_path: Path
) -> None:
    picture = ALL[name](history(tmp_path, count), dark=dark)
    assert picture._repr_png_()[1:4] == b"PNG"
    assert (sum(to_rgb(picture.get_facecolor())) < 0.5) == dark


@pytest.mark.parametrize("name", ["losses", "norms", "multipliers", "weights", "contributions"])
def test_every_step_of_a_short_history_is_a_point(name: str, tmp_path: Path) -> None:
    steps = history(tmp_path, 90)
    lines = [line for line in ALL[name](steps).axes[0].lines if line.get_label() in TASKS]
    expected = getattr(steps, name)
    for k, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), steps.steps)
        shown = np.where(expected[:, k] > 0, expected[:, k], np.nan)
        np.testing.assert_array_equal(line.get_ydata(), shown)


def test_the_band_of_a_long_history_holds_every_outlier(tmp_path: Path) -> None:
    lines = step_lines(1500, TASKS)
    odd = json.loads(lines[717])
    odd["losses"]["a"] = 9e9
    lines[717] = json.dumps(odd) + "\n"
    steps = read(write(tmp_path / "run.jsonl", lines, TASKS))
    bands: Any = plots.losses(steps).axes[0].collections
    top = max(path.vertices[:, 1].max() for band in bands for path in band.get_paths())
    assert top == np.nanmax(steps.losses) == 9e9


def test_saturation_and_cosines_are_rows_of_their_means(tmp_path: Path) -> None:
    steps = history(tmp_path, 400)
    image: Any = plots.saturation(steps).axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.asarray(image), steps.saturated.T)
    image = plots.cosines(steps).axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(image, np.nan)[1], steps.cosines[:, 0, 2])


def test_saturated_stretches_are_shaded(tmp_path: Path) -> None:
    lines = step_lines(100, TASKS)
    lines = [
        line.replace("true, ", "false, ") if '"saturated": {"a": true' in line else line
        for line in lines
    ]
    steps = read(write(tmp_path / "run.jsonl", lines, TASKS))
    spans = [p for p in plots.weights(steps).axes[0].patches if p.get_label() is not None]
    held = steps.saturated.any(axis=1)
    assert len(spans) == int((np.diff(np.concatenate(([0], held, [0]))) == 1).sum())


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    empty = gaba.History(["a", "b"])
    for draw in (plots.weights, plots.overview, plots.saturation):
        with pytest.raises(ValueError, match="at least 1 step, found 0"):
            draw(empty)
    for draw in (plots.cosines, plots.shares):
        with pytest.raises(ValueError, match="cosines in some step, found none"):
            draw(history(tmp_path, 20, cosines=False))


def test_without_matplotlib_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: import gaba.record.plots\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    remedy = f"pictures need matplotlib, which is not installed: {install('plots')}"
    assert done.stdout.strip() == remedy
