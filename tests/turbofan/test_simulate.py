from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gaba.turbofan.data import load, write
from gaba.turbofan.fleet import COLUMNS, SENSORS
from gaba.turbofan.simulate import CONDITIONS, FAULTS, NOISE, simulate


@pytest.mark.parametrize("seed", range(3))
def test_lives_and_remaining_lives_are_plausible(seed: int) -> None:
    fleet = simulate(train_engines=40, test_engines=40, seed=seed)
    lives = fleet.train.groupby("unit")["cycle"].max().to_numpy()
    seen = fleet.test.groupby("unit")["cycle"].max().to_numpy()
    assert fleet.simulated
    assert lives.min() >= 130
    assert lives.max() <= 350
    assert (seen >= 20).all()
    assert (fleet.rul >= 5).all()
    total = seen + fleet.rul
    assert total.min() >= 130
    assert total.max() <= 350
    assert len(set(lives)) > 20


def test_it_is_a_valid_fleet_in_the_format_of_the_files(tmp_path: Path) -> None:
    fleet = simulate(train_engines=5, test_engines=4, seed=2)
    assert tuple(fleet.train.columns) == COLUMNS
    for path in write(fleet, tmp_path):
        assert "simulated" in path.name
        path.rename(path.with_name(path.name.replace("simulated", "FD002")))
    read = load("FD002", tmp_path)
    pd.testing.assert_frame_equal(read.train, fleet.train, check_exact=True)
    pd.testing.assert_frame_equal(read.test, fleet.test, check_exact=True)
    np.testing.assert_array_equal(read.rul, fleet.rul)


def test_load_gives_the_default_fleet_marked_as_simulated() -> None:
    fleet = load("simulated")
    assert fleet.simulated
    assert fleet.subset == "simulated"
    pd.testing.assert_frame_equal(fleet.train, simulate().train, check_exact=True)


def test_a_seed_fixes_everything_and_another_changes_it() -> None:
    one, again, other = (simulate(6, 4, seed=s) for s in (3, 3, 4))
    pd.testing.assert_frame_equal(one.train, again.train, check_exact=True)
    pd.testing.assert_frame_equal(one.test, again.test, check_exact=True)
    np.testing.assert_array_equal(one.rul, again.rul)
    assert not one.train.head(130).equals(other.train.head(130))
    more = simulate(6, 9, seed=3)
    pd.testing.assert_frame_equal(one.train, more.train, check_exact=True)


@pytest.mark.parametrize("conditions", range(1, 7))
def test_conditions_are_as_many_as_asked_for(conditions: int) -> None:
    fleet = simulate(20, 5, conditions=conditions)
    altitudes = set(fleet.train["setting1"].round().abs())
    assert altitudes == set(CONDITIONS[:conditions, 0])


def test_sensors_follow_the_condition_far_more_than_wear() -> None:
    train = simulate(30, 1).train
    by_condition = train.groupby(train["setting1"].round().abs())["s7"]
    assert np.ptp(by_condition.mean().to_numpy()) > 20 * by_condition.std().max()


def test_one_fault_moves_each_sensor_its_own_way_and_faster_towards_the_end() -> None:
    train = simulate(80, 1, seed=1, conditions=1, fault_modes=1).train
    life = train.groupby("unit")["cycle"].transform("max")
    fraction = train["cycle"] / life
    sensors = train[list(SENSORS)]
    fresh, middle, late = (
        sensors[(fraction >= low) & (fraction <= high)].mean().to_numpy()
        for low, high in ((0.0, 0.1), (0.45, 0.55), (0.95, 1.0))
    )
    moves = NOISE > 0.003
    np.testing.assert_array_equal(np.sign(late - fresh)[moves], np.sign(FAULTS[0])[moves])
    first_half, second_half = np.abs(middle - fresh)[moves], np.abs(late - middle)[moves]
    assert (second_half > 2 * first_half).all()


def test_two_faults_part_the_engines_and_one_does_not() -> None:
    def final_bypass_ratio(fault_modes: int) -> np.ndarray:
        train = simulate(40, 1, conditions=1, fault_modes=fault_modes).train
        change = train.groupby("unit")["s15"].agg(lambda s: s.iloc[-5:].mean() - s.iloc[:20].mean())
        return change.to_numpy()

    assert (final_bypass_ratio(1) > 0).all()
    both = final_bypass_ratio(2)
    assert 0.2 < np.mean(both > 0) < 0.8
    assert np.abs(both).min() > 0.03


def test_readings_are_noisy() -> None:
    train = simulate(10, 1, conditions=1).train
    early = train[train["cycle"] <= 30]
    residual = early.groupby("unit")["s11"].transform(lambda s: s - s.mean())
    assert residual.std() == pytest.approx(0.16, rel=0.2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train_engines": 0}, "train_engines must be at least 1, found 0"),
        ({"test_engines": -2}, "test_engines must be at least 1, found -2"),
        ({"conditions": 7}, "conditions must be at least 1 and at most 6, found 7"),
        ({"conditions": 0}, "conditions must be at least 1 and at most 6, found 0"),
        ({"fault_modes": 3}, "fault_modes must be at least 1 and at most 2, found 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        simulate(**settings)
