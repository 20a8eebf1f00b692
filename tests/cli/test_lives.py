"""The picture of several units over their lives: after a training, and of what was predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from _turbofan_runs import tiny_config, tiny_fleet
from gaba import cli
from gaba.cli import pictures
from gaba.turbofan import Columns, checkpoint, lives, open_run, own_fleet, plots, train
from gaba.turbofan.simulate import simulate

FLEET = tiny_fleet()
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on a tiny fleet with four test engines."""
    folder = tmp_path_factory.mktemp("run")
    train(tiny_config(folder, steps=2), fleet=FLEET)
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "engines.csv"
    test = FLEET.test.assign(unit=("ESN-" + FLEET.test["unit"].astype(str)))
    test.to_csv(path, index=False)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    kept: list[Figure] = []
    save = plots.save

    def remember(figure: Figure, path: Path) -> Path:
        kept.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "save", remember)
    return kept


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def names(figure: Figure) -> list[str]:
    return [axes.get_title("left") for axes in figure.axes]


def evaluated(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(run / checkpoint.PREDICTIONS) as file:
        return dict(file)


def test_the_test_engines_are_those_of_the_evaluation(run: Path) -> None:
    at = evaluated(run)
    interval = open_run(run, fleet=FLEET).interval
    found = lives.of_test(run, fleet=FLEET)
    assert [life.unit for life in found] == [str(at["unit"][i]) for i in np.argsort(at["rul_raw"])]
    for life in found:
        rows = at["trajectory_unit"] == int(life.unit)
        np.testing.assert_array_equal(life.cycle, at["trajectory_cycle"][rows])
        np.testing.assert_array_equal(life.true, at["trajectory_rul"][rows])
        np.testing.assert_allclose(life.rul, at["trajectory_rul_predicted"][rows], rtol=1e-6)
        low, high = interval.ends(life.rul)
        np.testing.assert_array_equal(life.low, low)
        np.testing.assert_array_equal(life.high, high)


def test_fewer_test_engines_are_spread_from_the_least_to_the_most_life(run: Path) -> None:
    first, last = lives.of_test(run, fleet=FLEET, count=2)
    at = evaluated(run)
    assert int(first.unit) == at["unit"][np.argmin(at["rul_raw"])]
    assert int(last.unit) == at["unit"][np.argmax(at["rul_raw"])]


def test_a_training_draws_them_and_counts_the_late_among_all(
    run: Path, drawn: list[Figure]
) -> None:
    paths = pictures.draw(run, fleet=FLEET)
    at = evaluated(run)
    late = sum(
        float(p) - float(t) > 10 for p, t in zip(at["rul_predicted"], at["rul"], strict=True)
    )
    figure = drawn[[path.name for path in paths].index("lives.png")]
    assert f"{late or 'None'} of 4 test engines predicted late: more than 10 cycles" in words(
        figure
    )
    assert "4 of 4 test engines, from the least to the most true remaining life" in words(figure)
    assert "simulated data · gaba" in words(figure)
    assert len(names(figure)) == 4


def test_a_prediction_draws_its_picture_and_leaves_its_lines_as_they_are(
    run: Path, engines: Path, tmp_path: Path, drawn: list[Figure],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    picture, out, plain = (tmp_path / name for name in ("new/a.png", "a.csv", "b.csv"))
    command = ["predict", str(run), "--file", str(engines)]
    assert cli.main([*command, "--out", str(plain)]) == 0
    assert cli.main([*command, "--out", str(out), "--plot", str(picture)]) == 0
    assert out.read_bytes() == plain.read_bytes()
    assert picture.read_bytes()[:8] == PNG
    last = pd.read_csv(out).set_index("unit")["rul"]
    soon = int((last <= 30).sum()) or "None"
    verdict = f"{soon} of 4 engines predicted to fail within 30 cycles of the last cycle"
    assert f"{picture}: {verdict}" in capsys.readouterr().out
    (figure,) = drawn
    assert verdict in words(figure)
    assert "engines.csv: 4 of 4 engines, from the least to the most predicted" in words(figure)
    assert names(figure) == [f"{unit}" for unit in last.sort_values(kind="stable").index]
    assert "predicted late" not in words(figure)
    assert "true, at most" not in words(figure)
    for axes, unit in zip(figure.axes, names(figure), strict=True):
        assert axes.get_title("right").split()[0] == f"{last[unit]:.0f}"


def test_of_units_that_failed_the_truth_is_known(
    run: Path, engines: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    command = ["predict", str(run), "--file", str(engines), "--every-cycle"]
    picture = tmp_path / "a.png"
    out = tmp_path / "a.csv"
    assert cli.main([*command, "--out", str(out), "--plot", str(picture), "--failed"]) == 0
    (figure,) = drawn
    last = pd.read_csv(out).groupby("unit")[["cycle", "rul"]].last()
    late = int((last["rul"] > 10).sum()) or "None"
    assert f"{late} of 4 engines predicted late: more than 10 cycles too many" in words(figure)
    assert names(figure) == last.sort_values("cycle", kind="stable").index.tolist()
    for axes in figure.axes:
        true = np.asarray(axes.lines[1].get_ydata())
        assert true[-1] == 0
        assert set(np.diff(true)) <= {0.0, -1.0}
        assert true.max() <= 125


def test_own_data_keep_their_names_their_cap_and_are_called_units(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    frame = simulate(6, 1, seed=1, conditions=1).train.groupby("unit").tail(60)
    columns = Columns(sensors=("s2", "s11"))
    frame = frame.assign(unit="cell-" + frame["unit"].astype(str))[list(columns.needed)]
    config = tiny_config(tmp_path / "run", steps=2, columns=columns, rul_cap=50.0, subset="cells")
    train(config, fleet=frame)
    fleet = own_fleet(frame, columns, "cells")
    pictures.draw(tmp_path / "run", fleet=fleet)
    figure = next(each for each in drawn if "test units, from the least" in words(each))
    assert names(figure) == [fleet.names[unit] for unit in fleet.test["unit"].unique().tolist()]
    assert "more than 4 cycles too many" in words(figure)
    assert "true, at most 50" in words(figure)
    assert any(f"Engine {name}:" in words(each) for each in drawn for name in names(figure))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--plot", "a.pdf"], "--plot must be a file that ends in .png, found a.pdf"),
        (["--failed"], "--failed needs --plot"),
    ],
)
def test_wrong_use_is_said_in_one_line(
    options: list[str], expected: str, run: Path, engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(run), "--file", str(engines), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"gaba: error: {expected}")
    assert error.count("\n") == 1
