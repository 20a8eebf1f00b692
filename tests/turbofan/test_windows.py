from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gaba.turbofan.data import DataNotFoundError, load
from gaba.turbofan.fleet import INPUTS, SETTINGS, SUBSETS, Fleet
from gaba.turbofan.normalise import Normaliser
from gaba.turbofan.simulate import simulate
from gaba.turbofan.windows import (
    Prepared,
    Windows,
    cut,
    health_class,
    prepare,
    smoothed,
    thinned,
)

SENSOR_INPUTS = list(INPUTS[3:])


def small_fleet(seed: int = 0, conditions: int = 6) -> Fleet:
    """Simulated engines, some of them cut to less than a window (from the front, cycles anew)."""
    fleet = simulate(train_engines=12, test_engines=7, seed=seed, conditions=conditions)
    return Fleet(
        "simulated", shorten(fleet.train, {3: 30, 5: 29, 6: 1}), shorten(fleet.test, {2: 1, 7: 12}),
        fleet.rul, simulated=True,
    )  # fmt: skip


def shorten(frame: pd.DataFrame, lengths: dict[int, int]) -> pd.DataFrame:
    kept = frame["unit"].map(lengths).fillna(np.inf)
    return frame[frame["cycle"] <= kept].reset_index(drop=True)


def slow_windows(
    frame: pd.DataFrame, normaliser: Normaliser, rul: Any, window: int, stride: int, cap: float
) -> list[dict[str, Any]]:
    """What `cut` should give, one engine, one window and one row at a time."""
    found = []
    for position, (unit, engine) in enumerate(frame.groupby("unit")):
        rows = list(normaliser.transform(engine))
        after = 0 if rul is None else int(rul[position])
        ends = [end for end in range(len(rows), 0, -1) if end >= min(window, len(rows))]
        for end in reversed(ends[::stride]):
            block = rows[max(0, end - window) : end]
            while len(block) < window:
                block = [rows[0], *block]
            left = len(rows) - end + after
            found.append(
                {
                    "inputs": np.stack(block),
                    "rul": min(left, cap),
                    "rul_raw": left,
                    "health": 0 if left > 80 else 1 if left > 30 else 2,
                    "unit": unit,
                    "cycle": end,
                }
            )
    return found


def assert_windows(windows: Windows, expected: list[dict[str, Any]]) -> None:
    assert len(windows) == len(expected)
    for name in ("inputs", "rul", "rul_raw", "health", "unit", "cycle"):
        stacked = np.stack([item[name] for item in expected])
        np.testing.assert_array_equal(getattr(windows, name), stacked, err_msg=name)


def assert_equal(one: Windows, other: Windows) -> None:
    for name in ("inputs", "rul", "rul_raw", "health", "unit", "cycle"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize(
    ("window", "stride", "cap"),
    [(30, 1, 125.0), (30, 7, 125.0), (1, 1, 60.0), (50, 3, 20.0), (400, 1, 125.0), (2, 500, 90.5)],
)
def test_windows_and_labels_agree_with_a_loop(window: int, stride: int, cap: float) -> None:
    fleet = small_fleet()
    normaliser = Normaliser.fit(fleet.train)
    settings: dict[str, Any] = {"window": window, "stride": stride, "cap": cap}
    assert_windows(
        cut(fleet.train, normaliser, **settings),
        slow_windows(fleet.train, normaliser, None, **settings),
    )
    assert_windows(
        cut(fleet.test, normaliser, fleet.rul, **settings),
        slow_windows(fleet.test, normaliser, fleet.rul, **settings),
    )


def test_shapes_and_dtypes_are_those_of_the_contract() -> None:
    prepared = prepare(small_fleet())
    for windows in (
        prepared.train, prepared.validation, prepared.test, prepared.test_trajectories
    ):  # fmt: skip
        count = len(windows)
        assert windows.inputs.shape == (count, 30, 17)
        for name, dtype in (
            ("inputs", np.float32),
            ("rul", np.float32),
            ("rul_raw", np.float32),
            ("health", np.int64),
            ("unit", np.int64),
            ("cycle", np.int64),
        ):
            assert getattr(windows, name).dtype == dtype, name
            assert len(getattr(windows, name)) == count, name


def test_health_changes_right_after_80_and_30() -> None:
    rul = [0, 29, 30, 30.5, 31, 79, 80, 80.5, 81, 125, 300]
    np.testing.assert_array_equal(health_class(rul), [2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0])
    windows = prepare(small_fleet(), cap=50.0).train  # a low cap must not touch the health
    by_class = {c: windows.rul_raw[windows.health == c] for c in range(3)}
    assert by_class[0].min() == 81
    assert (by_class[1].min(), by_class[1].max()) == (31, 80)
    assert (by_class[2].min(), by_class[2].max()) == (0, 30)


def test_the_test_set_is_the_last_window_of_each_engine_with_its_rul() -> None:
    fleet = small_fleet()
    prepared = prepare(fleet)
    test, normaliser = prepared.test, prepared.normaliser
    np.testing.assert_array_equal(test.unit, np.sort(fleet.test["unit"].unique()))
    np.testing.assert_array_equal(test.rul_raw, fleet.rul)
    np.testing.assert_array_equal(test.rul, np.minimum(fleet.rul, 125))
    np.testing.assert_array_equal(test.cycle, fleet.test.groupby("unit")["cycle"].max())
    last_rows = fleet.test.groupby("unit").tail(1)
    np.testing.assert_array_equal(test.inputs[:, -1], normaliser.transform(last_rows))
    lengths = fleet.test.groupby("unit").size()
    assert len(prepared.test_trajectories) == np.maximum(lengths - 29, 1).sum()


def test_a_short_engine_is_padded_at_the_front_with_its_first_row() -> None:
    fleet = small_fleet()
    prepared = prepare(fleet)
    rows = prepared.normaliser.transform(fleet.test[fleet.test["unit"] == 7])
    (window,) = prepared.test.inputs[prepared.test.unit == 7]
    np.testing.assert_array_equal(window[18:], rows)
    np.testing.assert_array_equal(window[:18], np.repeat(rows[:1], 18, axis=0))


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_the_split_is_by_engine_and_of_the_size_asked_for(fraction: float, seed: int) -> None:
    fleet = small_fleet()
    prepared = prepare(fleet, seed=seed, validation_fraction=fraction)
    train, validation = set(prepared.train.unit), set(prepared.validation.unit)
    assert not train & validation
    assert train | validation == set(fleet.train["unit"])
    assert len(validation) == min(max(round(12 * fraction), 1), 11)


def test_a_seed_fixes_the_split_and_seeds_differ() -> None:
    fleet = small_fleet()
    splits = [set(prepare(fleet, seed=s).validation.unit.tolist()) for s in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len({frozenset(split) for split in splits}) > 1


def test_validation_stride_thins_validation_only_and_keeps_the_last_cycle() -> None:
    fleet = small_fleet()
    dense, thin = prepare(fleet, validation_stride=1), prepare(fleet, validation_stride=10)
    assert_equal(dense.train, thin.train)
    assert set(thin.validation.unit) == set(dense.validation.unit)
    assert (thin.validation.rul_raw % 10 == 0).all()
    kept = dense.validation.rul_raw % 10 == 0
    assert_equal(dense.validation.take(kept), thin.validation)


def assert_no_leakage(fleet: Fleet) -> None:
    before = prepare(fleet, seed=3)
    spoilt = fleet.train.copy()
    held_out = spoilt["unit"].isin(before.validation.unit)
    columns = list(INPUTS)
    spoilt.loc[held_out, columns] = spoilt.loc[held_out, columns] * 3.0 + 1000.0
    test = fleet.test.copy()
    test[columns] = test[columns] * -2.0 + 77.0
    after = prepare(Fleet(fleet.subset, spoilt, test, fleet.rul, fleet.simulated), seed=3)
    for name, array in before.normaliser.to_arrays().items():
        np.testing.assert_array_equal(after.normaliser.to_arrays()[name], array, err_msg=name)
    assert_equal(before.train, after.train)
    assert not np.array_equal(before.validation.inputs, after.validation.inputs)
    assert not np.array_equal(before.test.inputs, after.test.inputs)


@pytest.mark.parametrize("conditions", [1, 6])
def test_validation_and_test_rows_change_nothing_that_is_fitted(conditions: int) -> None:
    assert_no_leakage(small_fleet(conditions=conditions))


@pytest.mark.parametrize("conditions", range(1, 7))
def test_each_condition_is_found_and_normalised_by_itself(conditions: int) -> None:
    frame = simulate(train_engines=25, test_engines=1, seed=4, conditions=conditions).train
    normaliser = Normaliser.fit(frame)
    assert_normalised(frame, normaliser, conditions)


def assert_normalised(frame: pd.DataFrame, normaliser: Normaliser, conditions: int) -> None:
    """Zero mean and unit deviation of each sensor by altitude, of each setting over all rows."""
    altitude = frame["setting1"].round().abs().to_numpy()
    found = normaliser.condition(frame)
    assert len(set(found)) == len(set(altitude)) == conditions
    assert len(set(zip(found, altitude, strict=True))) == conditions
    assert (np.diff(normaliser.centres[:, 0]) > 0).all()
    z = pd.DataFrame(normaliser.transform(frame).astype(np.float64), columns=pd.Index(INPUTS))
    varies = (frame.groupby(altitude)[SENSOR_INPUTS].std() > 0).to_numpy().astype(float)
    by_altitude = z.groupby(altitude)[SENSOR_INPUTS]
    np.testing.assert_allclose(by_altitude.mean(), 0.0, atol=1e-4)
    np.testing.assert_allclose(by_altitude.std(ddof=0), varies, atol=1e-4)
    settings_vary = float(conditions > 1) * (frame[list(SETTINGS)].std() > 1e-9)
    np.testing.assert_allclose(z[list(SETTINGS)].mean(), 0.0, atol=1e-4)
    np.testing.assert_allclose(z[list(SETTINGS)].std(ddof=0), settings_vary, atol=1e-4)


def test_what_is_constant_becomes_zero_also_for_rows_where_it_is_not() -> None:
    fleet = small_fleet(conditions=1)
    train = fleet.train.assign(s2=641.7, s9=9e3)
    fitted = Normaliser.fit(train)
    z = fitted.transform(fleet.test)
    for name in (*SETTINGS, "s2", "s9"):
        np.testing.assert_array_equal(z[:, INPUTS.index(name)], 0.0)
    assert np.isfinite(z).all()
    assert z[:, INPUTS.index("s3")].std() > 0.5


def test_a_normaliser_survives_plain_arrays(tmp_path: Path) -> None:
    fleet = small_fleet()
    first = prepare(fleet)
    for name, array in first.normaliser.to_arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    arrays = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    restored = Normaliser.from_arrays(arrays)
    np.testing.assert_array_equal(
        restored.transform(fleet.test), first.normaliser.transform(fleet.test)
    )
    again = prepare(fleet, seed=9, normaliser=restored)
    assert again.normaliser is restored
    assert_equal(again.test, first.test)
    with pytest.raises(ValueError, match=r"arrays: must hold centres, .*, found mean"):
        Normaliser.from_arrays({"mean": np.zeros(3)})


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_smoothing_is_the_average_of_the_past_of_one_engine(share: float) -> None:
    frame = small_fleet().train
    inputs = Normaliser.fit(frame).transform(frame)
    found = smoothed(inputs, frame["unit"], share)
    np.testing.assert_array_equal(found[:, :3], inputs[:, :3])  # the settings
    unit = frame["unit"].to_numpy()
    for row in (0, 1, 40, len(frame) - 1):
        own = [i for i in range(row + 1) if unit[i] == unit[row]]
        weights = np.array([(1 - share) ** (row - i) for i in own])
        expected = weights @ inputs[own, 3:].astype(np.float64) / weights.sum()
        np.testing.assert_allclose(found[row, 3:], expected, rtol=1e-5, atol=1e-6)


def test_smoothing_sees_nothing_of_the_future_nor_of_other_engines() -> None:
    frame = small_fleet().train
    inputs = Normaliser.fit(frame).transform(frame)
    here = int(np.flatnonzero(frame["unit"].to_numpy() == 2)[50])
    spoilt = inputs.copy()
    spoilt[here + 1 :] += 100
    spoilt[frame["unit"].to_numpy() == 1] -= 100
    one, other = (smoothed(rows, frame["unit"], 0.1) for rows in (inputs, spoilt))
    own = frame["unit"].to_numpy()[: here + 1] == 2
    np.testing.assert_array_equal(one[: here + 1][own], other[: here + 1][own])


def test_smoothed_windows_are_windows_of_smoothed_rows() -> None:
    fleet = small_fleet()
    prepared = prepare(fleet, smoothing=0.1)
    rows = smoothed(prepared.normaliser.transform(fleet.test), fleet.test["unit"], 0.1)
    last = np.flatnonzero(np.append(np.diff(fleet.test["unit"]) != 0, True))
    np.testing.assert_array_equal(prepared.test.inputs[:, -1], rows[last])
    assert_equal(prepare(fleet).train, prepare(fleet, smoothing=1.0).train)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"smoothing": 0.0}, "smoothing must be above 0 and at most 1, found 0"),
        ({"smoothing": 1.5}, "smoothing must be above 0 and at most 1, found 1.5"),
        ({"window": 0}, "window must be above 0, found 0"),
        ({"stride": -1}, "stride must be above 0, found -1"),
        ({"validation_stride": 0}, "validation_stride must be above 0, found 0"),
        ({"cap": 0.0}, "cap must be above 0, found 0"),
        ({"cap": float("nan")}, "cap must be above 0, found nan"),
        ({"validation_fraction": 0.0}, "validation_fraction must be above 0 and below 1, found 0"),
        ({"validation_fraction": 1.0}, "validation_fraction must be above 0 and below 1, found 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(small_fleet(), **settings)


def test_one_engine_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="must have 2 training engines to hold one out, found 1"):
        prepare(simulate(train_engines=1, test_engines=1))


@pytest.fixture(scope="module", params=SUBSETS)
def real(request: pytest.FixtureRequest) -> tuple[Fleet, Prepared]:
    try:
        fleet = load(request.param)
    except DataNotFoundError as error:
        pytest.skip(f"needs the real data: {error}")
    return fleet, prepare(fleet)


def test_real_windows_are_all_there_and_labelled_right(real: tuple[Fleet, Prepared]) -> None:
    fleet, prepared = real
    lengths = fleet.train.groupby("unit").size()
    trained = lengths.reindex(np.unique(prepared.train.unit))
    assert len(prepared.train) == np.maximum(trained - 29, 1).sum()
    assert len(np.unique(prepared.validation.unit)) == round(0.2 * len(lengths))
    life = lengths.reindex(prepared.train.unit).to_numpy()
    np.testing.assert_array_equal(prepared.train.rul_raw, life - prepared.train.cycle)
    np.testing.assert_array_equal(prepared.test.rul_raw, fleet.rul)
    assert len(prepared.test) == fleet.test["unit"].nunique()
    assert np.abs(prepared.train.inputs).max() < 15
    assert np.abs(prepared.test_trajectories.inputs).max() < 15


def test_real_conditions_are_one_or_six_and_normalised(real: tuple[Fleet, Prepared]) -> None:
    fleet, prepared = real
    conditions = {"FD001": 1, "FD002": 6, "FD003": 1, "FD004": 6}[fleet.subset]
    training = fleet.train[fleet.train["unit"].isin(prepared.train.unit)]
    assert_normalised(training, prepared.normaliser, conditions)


def test_real_test_windows_agree_with_a_loop(real: tuple[Fleet, Prepared]) -> None:
    fleet, prepared = real
    kept = fleet.test["unit"] % 10 == 5
    units = np.sort(fleet.test["unit"].unique())
    few = prepared.test_trajectories.take(prepared.test_trajectories.unit % 10 == 5)
    rul = fleet.rul[units % 10 == 5]
    expected = slow_windows(fleet.test[kept], prepared.normaliser, rul, 30, 1, 125.0)
    assert_windows(few, expected)


@pytest.mark.parametrize("real", ["FD001", "FD002"], indirect=True)
def test_real_data_do_not_leak(real: tuple[Fleet, Prepared]) -> None:
    assert_no_leakage(real[0])


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_thinning_leaves_a_share_of_the_capped_windows_and_all_others(share: float) -> None:
    every = prepare(small_fleet(), cap=100.0).train
    fewer = thinned(every, 100.0, share)
    below = every.rul < 100
    assert (every.rul == 100).mean() > 0.3
    assert (fewer.rul == 100).mean() == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(fewer.inputs[fewer.rul < 100], every.inputs[below])
    engines = [set(windows.unit[windows.rul == 100]) for windows in (every, fewer)]
    if share > 0.1:  # evenly: no engine that had some loses all of them
        assert engines[0] == engines[1]


def test_thinning_keeps_every_window_where_there_is_nothing_to_thin() -> None:
    every = prepare(small_fleet(), cap=100.0).train
    assert thinned(every, 100.0, 1.0) is every
    only = every.take(every.rul == 100)
    assert thinned(only, 100.0, 0.15) is only
    without = every.take(every.rul < 100)
    assert thinned(without, 100.0, 0.15) is without


def test_validation_is_thinned_as_training_is_and_the_test_engines_are_not() -> None:
    whole, fewer = (prepare(small_fleet(), capped_share=share) for share in (1.0, 0.15))
    assert len(fewer.train) < len(whole.train)
    assert (fewer.validation.rul == 125).mean() == pytest.approx(0.15, abs=0.02)
    np.testing.assert_array_equal(fewer.test.inputs, whole.test.inputs)
    with pytest.raises(ValueError, match=r"capped_share must be above 0 .* found 0"):
        prepare(small_fleet(), capped_share=0.0)
