"""A table of your own: read, checked, split, labelled, trained on and predicted."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from _turbofan_runs import same, tiny_config, tiny_fleet
from gaba import turbofan
from gaba.turbofan import CMAPSS, Columns, Fleet, TrainConfig, checkpoint, own_fleet
from gaba.turbofan.data import load
from gaba.turbofan.fleet import INPUTS
from gaba.turbofan.normalise import Normaliser
from gaba.turbofan.simulate import CONDITIONS, JITTER, simulate
from gaba.turbofan.tables import read_csv

NAMES = {"unit": "engine", "cycle": "flight", **{name: f"my {name}" for name in INPUTS}}
OWN = Columns(
    sensors=("T24", "T30", "Ps30"), settings=("altitude", "mach"), unit="engine", cycle="flight"
)


def table(units: int = 6, conditions: int = 2, seed: int = 0) -> pd.DataFrame:
    """The ends of simulated engines, under other names, with two columns that nobody asked for."""
    frame = simulate(units, 1, seed=seed, conditions=conditions).train
    left = frame.groupby("unit")["cycle"].transform("max") - frame["cycle"]
    frame = frame[left < 60 + 10 * frame["unit"]].reset_index(drop=True)
    frame["cycle"] = frame.groupby("unit").cumcount() + 1
    named = {"s2": "T24", "s3": "T30", "s11": "Ps30", "setting1": "altitude", "setting2": "mach"}
    frame = frame.rename(columns={**named, "unit": "engine", "cycle": "flight"})
    frame["engine"] = "ESN-" + frame["engine"].astype(str)
    frame["remark"] = "none"
    return frame[["remark", "Ps30", "T24", "T30", "mach", "altitude", "s9", "flight", "engine"]]


TABLE = table()


# --- one path for all data -----------------------------------------------------------------------


def test_renamed_columns_train_to_the_same_bits(tmp_path: Path) -> None:
    fleet = tiny_fleet()
    columns = replace(
        CMAPSS,
        sensors=tuple(NAMES[name] for name in CMAPSS.sensors),
        settings=tuple(NAMES[name] for name in CMAPSS.settings),
    )
    train, test = (
        frame[["unit", "cycle", *INPUTS]].rename(columns={n: NAMES[n] for n in INPUTS})
        for frame in (fleet.train, fleet.test)
    )
    own = replace(fleet, train=train, test=test, columns=columns)
    few = {"steps": 1, "steps_per_epoch": 1}
    one = turbofan.train(tiny_config(tmp_path / "one", **few), fleet=fleet)
    other = turbofan.train(tiny_config(tmp_path / "other", columns=columns, **few), fleet=own)
    assert one.metrics == other.metrics
    states = [checkpoint.load(run.run_dir / checkpoint.CHECKPOINT)["best"] for run in (one, other)]
    assert same(*states)


def test_twice_the_cycles_and_twice_the_cap_give_exactly_twice_the_life(tmp_path: Path) -> None:
    """The model and its loss count in 1/125 of the cap, so the recipe fits every time scale."""
    found = []
    for factor in (1, 2):
        frame = TABLE.assign(flight=TABLE["flight"] * factor)
        config = tiny_config(
            tmp_path / str(factor), subset="own", columns=OWN, rul_cap=60.0 * factor, steps=2,
            sample_weights=True,
        )  # fmt: skip
        metrics = turbofan.train(config, fleet=frame).metrics
        predicted = turbofan.open_run(config.run_dir).predict(frame)
        found.append((metrics, predicted))
    (one, at_one), (two, at_two) = found
    assert two["validation"]["rmse"] == 2 * one["validation"]["rmse"]
    assert two["test"]["capped"]["rmse"] == pytest.approx(2 * one["test"]["capped"]["rmse"])
    assert two["test"]["health"] == one["test"]["health"]
    for name in ("rul", "rul_low", "rul_high", "cycle"):
        np.testing.assert_array_equal(at_two[name], 2 * at_one[name])
    assert (at_two["health"] == at_one["health"]).all()


# --- labels, split -------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [125.0, 60.0])
def test_labels_follow_the_cycles_also_where_some_are_missing(cap: float) -> None:
    rng = np.random.default_rng(3)
    frame = TABLE[rng.random(len(TABLE)) < 0.7].sample(frac=1, random_state=0)
    fleet = own_fleet(frame, OWN)
    seen = turbofan.prepare(fleet, cap=cap, window=20)
    last = {name: int(part["flight"].max()) for name, part in frame.groupby("engine")}
    for windows in (seen.train, seen.validation):
        life = np.array([last[fleet.names[unit]] for unit in windows.unit])
        np.testing.assert_array_equal(windows.rul_raw, life - windows.cycle)
        np.testing.assert_array_equal(windows.rul, np.minimum(life - windows.cycle, cap))
        share = windows.rul_raw / cap
        expected = np.where(share <= 0.24, 2, np.where(share <= 0.64, 1, 0))
        np.testing.assert_array_equal(windows.health, expected)
    rows = frame.groupby("engine").size()
    trained = {fleet.names[unit] for unit in seen.train.unit}
    assert len(seen.train) == sum(rows[name] - 19 for name in trained)


def test_own_thresholds_of_health_replace_the_shares_of_the_cap() -> None:
    fleet = own_fleet(TABLE, replace(OWN, health=(5.0, 50.0)))
    train = turbofan.prepare(fleet, cap=60.0).train
    assert train.rul_raw[train.health == 2].max() == 5
    assert train.rul_raw[train.health == 0].min() == 51


def test_a_fifth_of_the_units_is_stopped_before_failure_for_the_test() -> None:
    frame = table(units=30)
    fleet = own_fleet(frame, OWN, "mine")
    assert (fleet.subset, fleet.simulated) == ("mine", False)
    assert fleet.test["unit"].nunique() == len(fleet.rul) == 6
    assert not set(fleet.test["unit"]) & set(fleet.train["unit"])
    shares = []
    for (unit, part), rul in zip(fleet.test.groupby("unit"), fleet.rul, strict=True):
        whole = frame[frame["engine"] == fleet.names[int(str(unit))]]
        assert int(part["cycle"].max()) + rul == whole["flight"].max()
        kept = whole[whole["flight"] <= part["cycle"].max()]
        np.testing.assert_array_equal(part[list(OWN.inputs)], kept[list(OWN.inputs)])
        shares.append(len(part) / len(whole))
    assert 0.2 <= min(shares) < max(shares) <= 1
    again = own_fleet(frame.sample(frac=1, random_state=1), OWN)
    names = [{f.names[unit] for unit in f.test["unit"]} for f in (fleet, again)]
    assert names[0] == names[1]


def test_whole_numbers_stay_the_names_of_units() -> None:
    frame = TABLE.assign(engine=TABLE["engine"].str.removeprefix("ESN-").astype(int) * 10)
    fleet = own_fleet(frame, OWN)
    assert fleet.names == {}
    assert set(fleet.train["unit"]) | set(fleet.test["unit"]) == {10, 20, 30, 40, 50, 60}


# --- operating conditions ------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e4])
def test_auto_counts_the_conditions_in_any_unit(count: int, unit: float) -> None:
    rng = np.random.default_rng(count)
    kind = rng.integers(count, size=600)
    settings = (CONDITIONS[kind] + JITTER * rng.uniform(-1, 1, (600, 3)))[:, :2] * unit - 40 * unit
    frame = pd.DataFrame(settings, columns=["altitude", "mach"])
    frame[list(OWN.sensors)] = 100.0 * kind[:, None] + rng.normal(size=(600, 3))
    fitted = Normaliser.fit(frame, OWN)
    assert len(fitted.centres) == count
    found = fitted.condition(frame)
    assert len(set(zip(found.tolist(), kind.tolist(), strict=True))) == count
    z = fitted.transform(frame)[:, 2:]
    for c in range(count):
        np.testing.assert_allclose(z[kind == c].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(z[kind == c].std(axis=0), 1, atol=1e-5)
    assert fitted.knows(frame).all()
    far = frame.assign(altitude=frame["altitude"].max() + 30 * unit)
    assert not fitted.knows(far).any()


def test_the_number_of_conditions_can_be_given() -> None:
    fitted = Normaliser.fit(TABLE, OWN, conditions=1)
    assert len(fitted.centres) == 1
    x = TABLE[list(OWN.inputs)].to_numpy()
    expected = (x - x.mean(axis=0)) / x.std(axis=0)  # the settings are inputs: nothing is jitter
    np.testing.assert_allclose(fitted.transform(TABLE), expected, rtol=1e-4, atol=1e-5)
    assert len(Normaliser.fit(TABLE, OWN, conditions=5).centres) == 5
    two = TABLE.assign(altitude=np.arange(len(TABLE)) % 2, mach=0.5)
    with pytest.raises(ValueError, match=r"^conditions must be at most 2, .* found 3$"):
        Normaliser.fit(two, OWN, conditions=3)
    assert len(Normaliser.fit(two, OWN).centres) == 2
    assert len(Normaliser.fit(two.assign(altitude=0.0), OWN).centres) == 1


def test_without_settings_there_is_one_condition() -> None:
    columns = replace(OWN, settings=())
    fitted = Normaliser.fit(TABLE, columns)
    x = TABLE[list(OWN.sensors)].to_numpy()
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(fitted.transform(TABLE), expected, rtol=1e-4, atol=1e-5)
    assert fitted.knows(TABLE).all()
    with pytest.raises(ValueError, match=r"^conditions must be 1 or 'auto' without settings"):
        TrainConfig("own", columns=columns, conditions=6)


def test_arrays_of_an_older_version_have_the_reach_of_cmapss() -> None:
    arrays = Normaliser.fit(tiny_fleet().train).to_arrays()
    del arrays["reach"]
    np.testing.assert_array_equal(Normaliser.from_arrays(arrays).reach, [1.0, 0.05, 1.0])
    with pytest.raises(ValueError, match=r"^arrays: must hold centres, .* reach, found"):
        Normaliser.from_arrays(arrays, OWN)
    with pytest.raises(ValueError, match="must be of 2 settings and 3 sensors, found 3 and 14"):
        Normaliser.from_arrays({**arrays, "reach": np.zeros(3)}, OWN)


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "fleet.csv"
    TABLE.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings: dict[str, Any] = {"columns": OWN, "rul_cap": 80.0, "steps": 4, "window": 25}
    turbofan.train(tiny_config(folder, subset=str(csv), **settings))
    return folder


def test_a_run_predicts_the_test_units_as_its_evaluation_does(run: Path, csv: Path) -> None:
    fleet = load("fleet.csv", csv.parent, OWN)
    names = np.array([fleet.names[unit] for unit in fleet.test["unit"]])
    records = fleet.test.assign(engine=names, flight=fleet.test["cycle"])
    with np.load(run / checkpoint.PREDICTIONS) as file:
        at = dict(file)
    for every, prefix in ((False, ""), (True, "trajectory_")):
        found = turbofan.open_run(run).predict(records, every_cycle=every)
        assert found["unit"].tolist() == at[f"{prefix}name"].tolist()
        np.testing.assert_array_equal(found["cycle"], at[f"{prefix}cycle"])
        rul = found["rul"].to_numpy(np.float32)
        np.testing.assert_allclose(rul, at[f"{prefix}rul_predicted"], rtol=1e-5)
    first = found.groupby("unit")["cycle"].min()
    assert set(first) == {25}


def test_a_run_holds_what_reading_new_files_needs(run: Path, csv: Path, tmp_path: Path) -> None:
    config = TrainConfig.read(run)
    assert config.columns == OWN
    assert (config.subset, config.data_dir) == ("fleet.csv", str(csv.parent))
    assert (config.rul_cap, config.window, config.conditions) == (80.0, 25, "auto")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    settings = json.loads((moved / checkpoint.CONFIG).read_text())
    (moved / checkpoint.CONFIG).write_text(json.dumps(settings | {"data_dir": "gone"}))
    expected = turbofan.open_run(run).predict(TABLE)
    pd.testing.assert_frame_equal(turbofan.open_run(moved).predict(TABLE), expected)
    with pytest.raises(FileNotFoundError):
        turbofan.evaluate(moved)
    before = json.loads((run / checkpoint.METRICS).read_text())
    assert turbofan.evaluate(moved, data_dir=csv.parent) == before


def test_a_table_trains_resumes_and_evaluates_as_its_file_does(run: Path, tmp_path: Path) -> None:
    config = TrainConfig.read(run)
    own = replace(config, run_dir=str(tmp_path), subset="my fleet", data_dir=None)

    def stop(epoch: turbofan.Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turbofan.train(own, fleet=TABLE, on_epoch=stop)
    resumed = turbofan.train(own, fleet=TABLE, resume=True)
    assert resumed.resumed_at == 2
    expected = json.loads((run / checkpoint.METRICS).read_text())
    assert resumed.metrics == expected | {"subset": "my fleet"}
    assert turbofan.evaluate(tmp_path, fleet=TABLE) == resumed.metrics
    with pytest.raises(ValueError, match=r"found 'my fleet' .*a table of your own is a \.csv file"):
        turbofan.evaluate(tmp_path)


def test_a_condition_that_the_run_has_not_seen_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match=r"^unit ESN-1, cycle 1: unknown operating condition, alt"):
        turbofan.open_run(run).predict(TABLE.assign(altitude=-40.0))
    with pytest.raises(ValueError, match=r"\(-?0, 0; 10, 0\.25\d*\), found -40, 0\.\d+$"):
        turbofan.open_run(run).predict(TABLE.assign(altitude=-40.0, mach=0.77))


# --- errors --------------------------------------------------------------------------------------


def changed(column: str, value: object, row: int = 3) -> pd.DataFrame:
    values = TABLE[column].tolist()
    return TABLE.assign(**{column: [*values[:row], value, *values[row + 1 :]]})


BROKEN = [
    (
        TABLE.rename(columns={"T24": "t_24", "flight": "flights"}),
        r"^missing columns flight, T24 \(needed: engine, flight, altitude, mach, T24, T30, Ps30; "
        r"found: remark, .*\): did you mean 'flights' for flight, 't_24' for T24\?$",
    ),
    (changed("T30", "hot"), "^row 4: a finite number is needed in column T30, found 'hot'$"),
    (changed("T30", math.nan), "^row 4: a finite number is needed in column T30, found nan$"),
    (changed("engine", None), "^row 4: the name of an engine is needed in column engine$"),
    (
        changed("flight", 3),
        "whole numbers each once: cycle 3 stands twice, in row 3 and row 4: drop one of unit ESN-1",
    ),
    (changed("flight", 4.5), r"each once: unit ESN-1 has cycle 4\.5, in row 4$"),
    (TABLE[:0], "^an engine needs at least one row, found none$"),
    (
        TABLE[TABLE["engine"].isin(["ESN-1", "ESN-2"])],
        "must have at least 3 units that ran to failure, .* found 2$",
    ),
    (pd.concat([TABLE, TABLE[["T24"]]], axis=1), "^column T24 must be there once, found 2$"),
]


@pytest.mark.parametrize(("frame", "expected"), BROKEN, ids=[said[:60] for _, said in BROKEN])
def test_what_cannot_be_trained_on_is_said(
    frame: pd.DataFrame, expected: str, tmp_path: Path
) -> None:
    config = TrainConfig("own", columns=OWN, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=expected):
        turbofan.train(config, fleet=frame)
    assert not (tmp_path / "run").exists()


def test_a_file_is_named_with_the_line(csv: Path, tmp_path: Path) -> None:
    lines = csv.read_text().splitlines()
    lines[3] = lines[3].replace("none,", "none,hot", 1)
    path = tmp_path / "bad.csv"
    path.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")  # a blank line moves the others
    with pytest.raises(ValueError, match=r"bad\.csv: row 3: .* in column Ps30 \(line 5\), found"):
        load(str(path), columns=OWN)
    path.write_text("\n".join([*lines[:3], lines[2], *lines[4:]]))
    with pytest.raises(ValueError, match=r"in row 2 \(line 3\) and row 3 \(line 4\): drop one"):
        load("bad.csv", tmp_path, OWN)
    path.write_text('remark,T24\n"two\nlines",1\n')
    assert read_csv(path).index.name is None  # no line is named where they would be wrong
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        load("no.csv", tmp_path, OWN)


def test_a_window_longer_than_every_engine_is_refused(tmp_path: Path) -> None:
    short = TABLE[TABLE["flight"] <= 28]
    config = TrainConfig("own", columns=OWN, run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"^window must be at most 28, .* found 30$"):
        turbofan.train(config, fleet=short)
    assert turbofan.prepare(own_fleet(short, OWN), window=28).train.inputs.shape[1] == 28


def test_a_fleet_of_other_columns_than_the_settings_is_refused(tmp_path: Path) -> None:
    fleet: Fleet = own_fleet(TABLE, OWN)
    with pytest.raises(ValueError, match=r"^columns must be those of the fleet, engine, flight, "):
        turbofan.train(tiny_config(tmp_path), fleet=fleet)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sensors": ()}, "sensors must name at least one column, found none"),
        ({"sensors": "abc"}, "sensors must be a sequence of columns, found 'abc'"),
        ({"sensors": ("a", "a")}, "columns must be named once each, found 'a' 2 times"),
        ({"sensors": ("a",), "unit": "a"}, "columns must be named once each, found 'a' 2 times"),
        ({"sensors": ("unit",), "unit": "engine"}, "cannot be called 'unit': rename it"),
        ({"sensors": ("a",), "reach": (1.0,)}, "a number for each of the 0 settings, found 1"),
        ({"sensors": ("a",), "health": (80.0, 30.0)}, "above 0 and below 30.0, found 80.0"),
        ({"sensors": ("a",), "health": (1.0,)}, "health must be two RULs, found 1"),
    ],
)
def test_columns_that_do_not_fit_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Columns(**settings)
