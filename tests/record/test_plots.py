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
from _models import TwoStage, batch
from _steps import make_history
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
        known = expected[:, k] > 0
        np.testing.assert_array_equal(line.get_xdata(), steps.steps[known])
        np.testing.assert_array_equal(line.get_ydata(), expected[known, k])


def test_what_is_measured_now_and_then_is_joined_up_and_a_long_gap_is_not() -> None:
    norms = np.full((60, 2), np.nan)
    norms[::3], norms[30:50, 1] = 2.0, np.nan
    lines = plots.norms(make_history(norms, [1.0, 1.0], losses=np.ones((60, 2)))).axes[0].lines
    one, other = (line for line in lines if line.get_label() in ("rul", "health"))
    np.testing.assert_array_equal(one.get_xdata(), np.arange(0, 60, 3))
    there = np.asarray(other.get_ydata(), dtype=float)
    assert len(there) == 14
    assert np.flatnonzero(np.isnan(there)).tolist() == [10]
    assert (one.get_marker(), other.get_marker()) == (".", ".")


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


@pytest.mark.parametrize("k", [3, 17])
def test_the_matrix_shows_the_median_cosine_of_each_pair(k: int, tmp_path: Path) -> None:
    tasks = tuple(f"t{i}" for i in range(k))
    lines = step_lines(90, tasks, cosines=True)
    steps = read(write(tmp_path / "run.jsonl", lines, tasks))
    picture = plots.cosine_matrix(steps)
    axes = picture.axes[0]
    raw = [line for line in map(json.loads, lines) if line["finite"] and "cosines" in line]
    pair = [line["cosines"][0][2] for line in raw if line["cosines"][0][2] is not None]
    image: Any = axes.images[0].get_array()
    shown = np.ma.filled(image, np.nan)
    assert shown[0, 2] == shown[2, 0] == np.median(pair)
    assert np.isnan(np.diag(shown)).all()
    assert axes.get_title("left") == f"median cosine of {len(raw)} steps"
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(texts) == (k * k - k if k == 3 else 0)  # too small to be read
    if k == 3:
        assert texts[2, 0] == f"{np.median(pair):.2f}"


def test_a_pair_that_was_never_there_together_has_no_number(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in step_lines(30, TASKS, cosines=True)]
    for line in lines:
        if "cosines" in line:
            line["cosines"][0][2] = line["cosines"][2][0] = None
    text = [json.dumps(line) + "\n" for line in lines]
    axes = plots.cosine_matrix(read(write(tmp_path / "run.jsonl", text, TASKS))).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[2, 0] == texts[0, 2] == "–"
    assert texts[1, 0] != "–"


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
    for draw in ALL.values():
        with pytest.raises(ValueError, match="at least 1 step, found 0"):
            draw(empty)
    without = history(tmp_path, 20, cosines=False)
    for draw in (plots.cosines, plots.cosine_matrix):
        with pytest.raises(ValueError, match="cosines in some step, found none"):
            draw(without)
    with pytest.raises(ValueError, match="shares in some step, found none"):
        plots.shares(without)


def test_shares_that_a_probe_revealed_are_drawn_without_cosines() -> None:
    model = TwoStage([1.0, 2.0, 3.0])
    balancer = gaba.Balancer(model.names, shared=model.trunk, every=1)
    for seed in range(4):
        balancer.backward(model.losses(batch(seed)))
    lines = plots.shares(balancer.history).axes[0].lines
    shown = [line.get_ydata() for line in lines if line.get_label() in model.names]
    assert np.isnan(balancer.history.cosines).all()
    assert np.isfinite(balancer.history.shares[1:]).all()
    np.testing.assert_array_equal(shown, balancer.history.shares[1:].T)


def test_without_matplotlib_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: import gaba.record.plots\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    remedy = f"pictures need matplotlib, which is not installed: {install('plots')}"
    assert done.stdout.strip() == remedy
