from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from _turbofan_runs import tiny_config, tiny_fleet
from gaba import cli, turbofan
from gaba.turbofan import Interval, checkpoint, data, open_run, read_engines, simulate, train
from gaba.turbofan.fleet import INPUTS, SENSORS

FLEET = tiny_fleet()
NEEDED = ["unit", "cycle", *INPUTS]
CAP = 125.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(tiny_config(folder, steps=6, steps_per_epoch=3), fleet=FLEET)
    return folder


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test engines in the layout of C-MAPSS."""
    return data.write(FLEET, tmp_path_factory.mktemp("data"))[1]


def evaluated(run: Path, prefix: str = "") -> dict[str, np.ndarray]:
    with np.load(run / checkpoint.PREDICTIONS) as file:
        return {
            name: file[f"{prefix}{name}"]
            for name in ("unit", "cycle", "rul_predicted", "health_predicted", "health_probability")
        }


def assert_those_of_the_evaluation(found: pd.DataFrame, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(found["unit"], expected["unit"])
    np.testing.assert_array_equal(found["cycle"], expected["cycle"])
    rul = found["rul"].to_numpy(np.float32)
    np.testing.assert_array_equal(rul, expected["rul_predicted"])
    classes = [turbofan.HEALTH[i] for i in expected["health_predicted"]]
    assert found["health"].tolist() == classes
    probabilities = found[["p_normal", "p_degrading", "p_critical"]].to_numpy(np.float32)
    np.testing.assert_array_equal(probabilities, expected["health_probability"])


# --- the numbers are those of the evaluation -----------------------------------------------------


def test_the_file_of_the_test_engines_gives_the_numbers_of_evaluate(
    run: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    words = ["predict", str(run), "--file", str(text_file), "--out", str(out)]
    assert cli.main(words) == 0
    assert "4 lines of 4 engines" in capsys.readouterr().out
    assert_those_of_the_evaluation(pd.read_csv(out), evaluated(run))


def test_every_cycle_gives_the_trajectories_of_evaluate(
    run: Path, text_file: Path, tmp_path: Path
) -> None:
    csv, out = tmp_path / "engines.csv", tmp_path / "predictions.csv"
    read_engines(text_file)[NEEDED].to_csv(csv, index=False)
    words = ["predict", str(run), "--file", str(csv), "--out", str(out), "--every-cycle"]
    assert cli.main(words) == 0
    found, expected = pd.read_csv(out), evaluated(run, "trajectory_")
    assert len(found) > 4 * 10
    assert_those_of_the_evaluation(found, expected)


def test_the_order_of_rows_and_the_names_of_engines_do_not_matter(run: Path) -> None:
    opened = open_run(run)
    expected = opened.predict(FLEET.test)
    named = FLEET.test.assign(unit="ESN-" + FLEET.test["unit"].astype(str))
    named.loc[:, [name for name in SENSORS if name not in INPUTS]] = math.nan  # nobody asks
    found = opened.predict(named.sample(frac=1, random_state=0))
    assert sorted(found["unit"]) == ["ESN-1", "ESN-2", "ESN-3", "ESN-4"]
    found["unit"] = found["unit"].str.removeprefix("ESN-").astype(int)
    found = found.sort_values("unit", ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)


def test_a_table_is_printed_without_out(
    run: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(run), "--file", str(text_file)]) == 0
    out = capsys.readouterr().out
    assert "simulated data" in out
    assert "90% interval" in out
    lines = re.findall(
        r"^ *(\d+) +(\d+) +([\d.]+) +0 or more +(normal|degrading|critical)", out, re.MULTILINE
    )
    expected = evaluated(run)
    assert [(int(unit), int(cycle)) for unit, cycle, *_ in lines] == [
        *zip(expected["unit"], expected["cycle"], strict=True)
    ]
    assert [line[2] for line in lines] == [f"{rul:.1f}" for rul in expected["rul_predicted"]]
    assert "no interval narrower than 0 to 125" in out  # one validation engine proves nothing


# --- the interval --------------------------------------------------------------------------------


def test_the_interval_of_a_run_is_kept_and_found_again_from_its_data(tmp_path: Path) -> None:
    fleet = simulate.simulate(train_engines=60, test_engines=3, conditions=1, seed=2)
    train(tiny_config(tmp_path, steps=30, steps_per_epoch=15), fleet=fleet)
    kept = open_run(tmp_path)
    assert min(kept.interval.half_widths) < math.inf
    state = checkpoint.load(tmp_path / checkpoint.CHECKPOINT)
    del state["best"]["interval"]  # as in a run of an older version
    checkpoint.save(tmp_path / checkpoint.CHECKPOINT, state)
    again = open_run(tmp_path, fleet=fleet).interval
    assert again.engines == kept.interval.engines
    np.testing.assert_allclose(again.half_widths, kept.interval.half_widths, rtol=1e-5)
    config = turbofan.TrainConfig.read(tmp_path)
    held = turbofan.prepare(
        fleet, smoothing=config.smoothing, capped_share=config.capped_share
    ).validation
    assert sum(count > 0 for count in again.engines) == len(
        np.unique(np.clip(turbofan.predict(kept.model, held.inputs).rul // 25, 0, 4))
    )
    with pytest.raises(ValueError, match=r"the data are not those of .* must give an RMSE"):
        open_run(tmp_path, fleet=simulate.simulate(60, 3, seed=9, conditions=1))


def test_the_half_width_is_the_order_statistic_of_split_conformal_prediction() -> None:
    """With one window an engine: the ⌈0.9 (K + 1)⌉-th smallest error, infinite if there is none."""
    rng = np.random.default_rng(0)
    for engines in (1, 8, 9, 10, 19, 20, 57):
        error = rng.exponential(10.0, engines)
        sign = rng.choice([-1.0, 1.0], engines)
        found = Interval.fit(
            np.full(engines, 60.0), 60.0 + sign * error, np.arange(engines), cap=CAP
        )
        rank = math.ceil(0.9 * (engines + 1))
        expected = np.sort(error)[rank - 1] if rank <= engines else math.inf
        assert found.half_widths == pytest.approx((math.inf,) * 2 + (expected,) + (math.inf,) * 2)
        assert found.engines == (0, 0, engines, 0, 0)


def test_a_window_counts_less_the_more_its_engine_has() -> None:
    """Nine engines of one window and error 1, one of 1000 windows and error 50."""
    unit = np.concatenate((np.arange(9), np.full(1000, 9)))
    error = np.where(unit < 9, 1.0, 50.0)
    found = Interval.fit(60.0 + 0 * error, 60.0 + error, unit, cap=CAP, coverage=0.8)
    assert found.half_widths[2] == 1.0  # their weight is 9/11 = 0.82


def test_the_coverage_of_new_engines_is_the_nominal_one() -> None:
    """99 engines calibrate, the 100th is new: it is covered with a probability of 0.9 exactly."""
    rng = np.random.default_rng(1)
    trials, engines = 3000, 99
    covered = 0
    for _ in range(trials):
        predicted = rng.uniform(50, 75, engines + 1)  # one part
        true = predicted + rng.laplace(0, 0.1 * predicted)
        interval = Interval.fit(predicted[:-1], true[:-1], np.arange(engines), cap=CAP)
        (low,), (high,) = interval.ends(predicted[-1:])
        covered += low <= true[-1] <= high
    least, most = stats.binom.ppf([1e-6, 1 - 1e-6], trials, 0.9)
    assert least <= covered <= most


@pytest.mark.parametrize("part", range(5))
def test_engines_with_windows_that_resemble_each_other_are_covered_in_every_part(part: int) -> None:
    """The errors of an engine have a common component, and engines differ in their windows.

    The coverage is at least 0.9, and at most 0.9 + 2/(K + 1) (Lee, Barber, Willett 2023).
    """
    rng = np.random.default_rng(part)
    trials, engines = 1500, 30
    covered = 0
    for _ in range(trials):
        count = rng.integers(1, 20, engines + 1)
        unit = np.repeat(np.arange(engines + 1), count)
        predicted = rng.uniform(25 * part, 25 * part + 25, len(unit))
        common = rng.normal(0, 1, engines + 1)[unit]
        true = predicted + (1 + 3 * part) * (common + 0.5 * rng.normal(size=len(unit)))
        known = unit < engines
        interval = Interval.fit(predicted[known], true[known], unit[known], cap=CAP)
        assert sum(map(math.isfinite, interval.half_widths)) == 1
        row = rng.integers(known.sum(), len(unit))
        low, high = interval.ends(predicted[row : row + 1])
        covered += low[0] <= np.clip(true[row], 0, CAP) <= high[0]
    least = stats.binom.ppf(1e-6, trials, 0.9)
    most = stats.binom.ppf(1 - 1e-6, trials, 0.9 + 2 / (engines + 1))
    assert least <= covered <= most


def test_an_interval_lies_in_the_range_of_rul_and_holds_its_prediction() -> None:
    interval = Interval(0.9, CAP, (10.0, math.inf, 10.0, 10.0, 10.0), (20, 8, 20, 20, 20))
    low, high = interval.ends([-2.0, 5.0, 40.0, 60.0, 120.0, 130.0])
    assert low.tolist() == [-2.0, 0.0, 0.0, 50.0, 110.0, 120.0]
    assert high.tolist() == [8.0, 15.0, 125.0, 70.0, 125.0, 130.0]
    assert Interval.from_dict(interval.to_dict()) == interval


# --- errors --------------------------------------------------------------------------------------


def changed(column: str, value: object, row: int = 3) -> pd.DataFrame:
    values = FLEET.test[column].tolist()
    return FLEET.test.assign(**{column: [*values[:row], value, *values[row + 1 :]]})


BROKEN = [
    (FLEET.test.drop(columns=["s2", "cycle"]), r"^missing columns cycle, s2 \(needed: unit, cycle"),
    (FLEET.test[:0], "^an engine needs at least one row, found none$"),
    (changed("s4", math.inf), "^row 4: a finite number is needed in column s4, found inf$"),
    (changed("s4", "hot"), "^row 4: a finite number is needed in column s4, found 'hot'$"),
    (changed("unit", None), "^row 4: the name of an engine is needed in column unit$"),
    (FLEET.test.drop(index=5), "without gaps: unit 1 needs cycle 6, found 7$"),
    (pd.concat([FLEET.test[:9], FLEET.test[8:9]]), "unit 1 needs cycle 10, found 9$"),
    (FLEET.test[:1].assign(cycle=1.5), "unit 1 needs cycle 1, found 1.5$"),
    (
        changed("setting1", 35.0),
        r"^unit 1, cycle 4: unknown operating condition, setting1, setting2, setting3 must be near "
        r"one that the run has seen \(0, 0, 100; 10, 0\.25, 100\), found 35, ",
    ),
]


@pytest.mark.parametrize(("frame", "expected"), BROKEN, ids=[said for _, said in BROKEN])
def test_what_cannot_be_predicted_is_said(frame: pd.DataFrame, expected: str, run: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        open_run(run).predict(frame)


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_command_names_the_file_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, out = tmp_path / "engines.csv", tmp_path / "predictions.csv"
    for frame, expected in ((changed("s4", None), "row 4: "), (FLEET.test[["unit"]], "missing ")):
        frame.to_csv(csv, index=False)
        error = failed(["predict", str(run), "--file", str(csv), "--out", str(out)], capsys)
        assert error.startswith(f"gaba: error: {csv}: {expected}")
    csv.write_text("")
    said = f"gaba: error: {csv} cannot be read as a CSV file: "
    assert failed(["predict", str(run), "--file", str(csv)], capsys).startswith(said)
    text = tmp_path / "engines.txt"
    text.write_text("1 1 0.5\n")
    error = failed(["predict", str(run), "--file", str(text)], capsys)
    assert error == f"gaba: error: {text}, line 1: 26 columns needed, found 3\n"
    error = failed(["predict", str(run), "--file", str(tmp_path / "no.csv")], capsys)
    assert error == f"gaba: error: {tmp_path / 'no.csv'}: No such file or directory\n"
    assert not out.exists()


def test_a_run_that_is_not_finished_is_refused(
    run: Path, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(stopped, steps=6, steps_per_epoch=3), on_epoch=_interrupt, fleet=FLEET)
    error = failed(["predict", str(stopped), "--file", str(text_file)], capsys)
    assert "is not finished: it stopped after step 3 of at most 6; finish it with " in error
    assert f"`gaba train turbofan --resume {stopped}`" in error
    assert "no run in" in failed(["predict", str(tmp_path), "--file", str(text_file)], capsys)
    with pytest.raises(ValueError, match=r"is a run: open it with turbofan\.open_run"):
        turbofan.load(str(run))


def _interrupt(epoch: turbofan.Epoch) -> None:
    raise KeyboardInterrupt


def test_a_moved_run_without_its_data_and_its_device_predicts(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((moved / checkpoint.CONFIG).read_text())
    config |= {"subset": "FD001", "data_dir": str(tmp_path / "gone"), "device": "foo"}
    (moved / checkpoint.CONFIG).write_text(json.dumps(config))
    found = open_run(moved).predict(FLEET.test)
    assert_those_of_the_evaluation(found, evaluated(run))
