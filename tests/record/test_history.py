"""A history is bounded, can be indexed and sliced, and is read on from where one was."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from _asserts import NoHostSync
from _steps import TASKS, make_history, make_step
from gaba.record import History, Step
from gaba.record._rows import Rows
from gaba.record.jsonl import ENGINES

COLUMNS = ["steps", "measured", "finite", "combined", "engines", "times", "losses", "norms"]
COLUMNS += ["multipliers", "weights", "contributions", "saturated", "imbalance", "shares"]
COLUMNS += ["cosines"]


def gramians(n: int, k: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, k, k + 2))
    return found @ found.transpose(0, 2, 1)


def with_gramians(n: int, keep: int | None = None, every: int = 3) -> tuple[History, list[Step]]:
    """A history whose Gramian is known in every third step, and its steps."""
    history = History(TASKS, keep)
    rng = np.random.default_rng(1)
    steps = []
    for i, gramian in enumerate(gramians(n, 3)):
        multipliers, norms = np.exp(rng.normal(size=3)), np.sqrt(gramian.diagonal())
        if i % 7 == 0:
            multipliers[1] = norms[1] = np.nan
            gramian[1] = gramian[:, 1] = np.nan
        known = gramian if i % every == 0 else None
        engine = ENGINES[i % len(ENGINES)]
        others = {"engine": engine, "step": 10 + i, "time": 100.0 + i}
        step = make_step(multipliers, norms, gramian=known, **others)
        steps.append(step)
        history.append(step)
    return history, steps


def same(one: History, other: History) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


# --- columns and steps ---------------------------------------------------------------------------


def test_columns_hold_what_the_steps_held() -> None:
    history, steps = with_gramians(300)  # more than one chunk
    for name in ("losses", "norms", "multipliers", "weights", "contributions", "saturated"):
        expected = torch.stack([getattr(step, name) for step in steps])
        np.testing.assert_allclose(getattr(history, name), expected, rtol=1e-15)
    expected = torch.stack([step.shares for step in steps])
    np.testing.assert_array_equal(history.shares, expected)
    np.testing.assert_allclose(history.imbalance, [step.imbalance for step in steps], rtol=1e-15)
    for i, step in enumerate(steps):
        found = np.full((3, 3), np.nan) if step.cosines is None else step.cosines
        np.testing.assert_array_equal(history.cosines[i], found)
    np.testing.assert_array_equal(history.engines, [step.engine for step in steps])
    np.testing.assert_array_equal(history.steps, np.arange(10, 310))
    np.testing.assert_array_equal(history.times, np.arange(100, 400))


def test_a_step_comes_back_as_it_was() -> None:
    history, steps = with_gramians(40)
    assert len(list(history)) == 40
    for i in (0, 7, -1, -40):
        found, step = history[i], steps[i]
        for name in ("step", "time", "combined", "engine", "measured"):
            assert getattr(found, name) == getattr(step, name), name
        for name in ("losses", "norms", "multipliers", "saturated", "finite", "shares"):
            np.testing.assert_array_equal(getattr(found, name), getattr(step, name))
        assert (found.gramian is None) == (step.gramian is None)
        if step.gramian is not None and found.gramian is not None:
            np.testing.assert_allclose(found.gramian, step.gramian, rtol=1e-12)
    for i in (40, -41):
        with pytest.raises(IndexError, match="of 40 steps"):
            history[i]


@pytest.mark.parametrize("at", [slice(3, 9), slice(-5, None), slice(0, 40, 4), slice(9, 3)])
def test_a_slice_is_a_history(at: slice) -> None:
    history, steps = with_gramians(40)
    history.about = {"metric": "euclidean"}
    part = history[at]
    assert part.about == history.about
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(part, name), getattr(history, name)[at], name)
    part.append(steps[0])
    assert len(history) == 40
    np.testing.assert_array_equal(part.steps, [*history.steps[at], 10])
    np.testing.assert_array_equal(history.steps, np.arange(10, 50))


def test_a_slice_does_not_go_backwards() -> None:
    with pytest.raises(ValueError, match="forwards"):
        with_gramians(3)[0][::-1]


def test_columns_can_be_read_while_recording_goes_on() -> None:
    history, steps = with_gramians(300)
    before = history.multipliers
    kept = before.copy()
    for step in steps:
        history.append(step)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(history.multipliers, np.concatenate([kept, kept]))
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 0


def test_a_step_of_other_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="third"):
        History(["a", "b"]).append(make_step([1.0] * 3, [1.0] * 3))


def test_recording_does_not_wait_for_the_device() -> None:
    _, steps = with_gramians(300)
    history = History(TASKS)
    with NoHostSync():
        for step in steps:
            history.append(step)


def test_tensors_do_not_stay_on_the_device() -> None:
    """The newest chunk does, so that its last step can be amended without reading it back."""
    history, steps = with_gramians(256)
    assert len(history._open) == 256
    history.append(steps[0])
    assert len(history._open) == 1
    assert len(history) == 257
    assert not history._open


# --- the newest step, amended --------------------------------------------------------------------


def amended(step: Step, **changes: Any) -> Step:
    """What a measurement along the update adds to ``step``."""
    norms, shares = torch.tensor([[3.0, 1.0, 2.0], [0.5, -0.25, 0.75]], dtype=torch.float64)
    found = {"norms": norms, "shares": shares, "engine": "probe", "measured": True, "gramian": None}
    return replace(step, **found, about={"probe": "x"}, **changes)


READS: dict[str, Callable[[History], object]] = {
    "nobody": lambda history: None,
    "its length": len,
    "the last step": lambda history: history[-1],
    "reading on": lambda history: history.since(3),
}


@pytest.mark.parametrize("keep", [None, 100])
@pytest.mark.parametrize("reader", READS)
@pytest.mark.parametrize("n", [1, 2, 199, 255, 256, 257, 512, 513])
def test_an_amended_step_takes_the_place_of_the_last_one(
    n: int, reader: str, keep: int | None
) -> None:
    history, steps = with_gramians(n, keep)
    READS[reader](history)
    last = amended(steps[-1])
    history.amend(last)
    expected = History(TASKS, keep)
    for step in [*steps[:-1], last]:
        expected.append(step)
    assert (history.recorded, history.about) == (n, {"probe": "x"})
    same(history, expected)
    assert history.engines[-1] == "probe"
    np.testing.assert_array_equal(history.shares[-1], [0.5, -0.25, 0.75])
    assert np.isnan(history.cosines[-1]).all()
    for step in steps[:3]:  # and it goes on
        history.append(step)
        expected.append(step)
    same(history, expected)


def test_a_step_is_amended_with_its_gramian_or_twice() -> None:
    history, steps = with_gramians(7)
    gramian = torch.from_numpy(gramians(1, 3, seed=5)[0])
    other = amended(steps[-1])
    for read in (False, True):
        history.amend(replace(other, gramian=gramian))
        assert not read or len(history) == 7
        history.amend(replace(other, gramian=gramian * 4))
        assert not read or len(history) == 7
    assert len(history._angles.values) == 3  # of the steps 0, 3 and 6
    assert len(history) == 7
    expected = gramian / gramian.diagonal().sqrt().outer(gramian.diagonal().sqrt())
    np.testing.assert_allclose(history.cosines[-1], expected, rtol=1e-12)


def test_what_was_read_before_an_amendment_stays_as_it_was() -> None:
    history, steps = with_gramians(20)
    column, part, one = history.norms, history[10:], history[-1]
    kept = column.copy()
    history.amend(amended(steps[-1]))
    history.append(steps[0])
    assert len(history) == 21
    np.testing.assert_array_equal(column, kept)
    np.testing.assert_array_equal(part.norms, kept[10:])
    np.testing.assert_array_equal(one.norms, kept[-1])
    np.testing.assert_array_equal(history.norms[:-2], kept[:-1])
    np.testing.assert_array_equal(history.norms[-2], [3.0, 1.0, 2.0])


def test_a_part_is_amended_without_the_whole() -> None:
    history, steps = with_gramians(20)
    part, kept = history[:10], history.norms.copy()
    part.amend(amended(steps[9]))
    assert part.engines[-1] == "probe"
    np.testing.assert_array_equal(history.norms, kept)


def test_reading_on_gives_an_amended_step_once() -> None:
    history, steps = with_gramians(5)
    _, cursor = history.since(0)
    history.amend(amended(steps[-1]))
    assert len(history.since(cursor)[0]) == 0
    history.append(steps[0])
    history.amend(amended(steps[0]))
    new, cursor = history.since(cursor)
    assert (len(new), new.engines.tolist(), cursor) == (1, ["probe"], 6)


def test_an_amendment_of_other_tasks_is_refused_and_drops_nothing() -> None:
    history, _ = with_gramians(5)
    with pytest.raises(ValueError, match="third"):
        history.amend(make_step([1.0, 1.0], [1.0, 1.0]))
    assert len(history) == 5


def test_amending_does_not_wait_for_the_device() -> None:
    _, steps = with_gramians(300)
    history = History(TASKS)
    with NoHostSync():
        for step in steps:
            history.append(step)
            history.amend(step)
    assert len(history) == 300


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [4, 5, 100])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_the_newest_are_whole_and_the_rest_is_even(keep: int, pieces: int) -> None:
    rows = Rows(1, keep)
    for n in range(0, 3000, pieces):
        rows.add(np.arange(n, min(3000, n + pieces), dtype=float)[:, None])
        assert len(rows) < 2 * keep
        np.testing.assert_array_equal(rows.numbers, rows.values[:, 0])
        newest = rows.numbers[-min(keep, rows.count) :]
        np.testing.assert_array_equal(newest, np.arange(rows.count)[-keep:])
    assert rows.numbers[0] == 0
    gaps = np.diff(rows.numbers)
    assert (np.diff(gaps) <= 0).all()
    assert ((gaps != 1) & (gaps != gaps[0])).sum() <= 1  # where the old ones end


def test_a_thinned_history_keeps_its_columns_together() -> None:
    whole, steps = with_gramians(2000)
    thin = History(TASKS, 100)
    for step in steps:
        thin.append(step)
    assert len(thin) < 200
    assert thin.recorded == 2000
    at = thin.steps - 10
    for name in COLUMNS[:-1]:
        np.testing.assert_array_equal(getattr(thin, name), getattr(whole, name)[at], name)
    known = ~np.isnan(thin.cosines[:, 0, 0])
    assert known[-100:].sum() in (33, 34)
    np.testing.assert_array_equal(thin.cosines[known], whole.cosines[at][known])
    again = History(TASKS, 100)
    for step in steps:
        again.append(step)
        len(again)  # looking does not change what is kept
    same(again, thin)
    assert repr(thin).startswith(f"History({len(thin)} of 2,000 steps of rul, health, third; ")


def test_the_cosines_of_many_tasks_are_bounded_as_well() -> None:
    k = 60
    history = History([f"t{i}" for i in range(k)])
    assert (history._angles.keep or 0) * (k * k + 1) * 8 < 65e6
    assert History(["a", "b"], None)._angles.keep is None


def test_keep_is_checked() -> None:
    with pytest.raises(ValueError, match="keep must be at least 4 steps, or None for all, found 3"):
        History(["a"], keep=3)


# --- reading on ----------------------------------------------------------------------------------


def test_since_gives_every_step_once() -> None:
    history, cursor = History(TASKS, 100), 0
    seen: list[int] = []
    _, steps = with_gramians(1000)
    for i, step in enumerate(steps):
        history.append(step)
        if i % 37 == 0 or i == 999:
            new, cursor = history.since(cursor)
            seen += new.steps.tolist()
            np.testing.assert_array_equal(new.cosines[-1], history.cosines[-1])
    assert seen == list(range(10, 1010))
    assert len(history.since(cursor)[0]) == 0
    late, cursor = history.since(0)
    assert (len(late), cursor) == (len(history), 1000)
    assert len(history.since(history.recorded)[0]) == 0


def test_reading_on_takes_as_long_in_a_long_history_as_in_a_short_one() -> None:
    def seconds(history: History) -> float:
        step = make_step([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], gramian=np.eye(3))
        cursor, found = history.recorded, []
        for _ in range(60):
            history.append(step)
            begun = time.perf_counter()
            new, cursor = history.since(cursor)
            _ = new.losses[-1], new.imbalance[-1], new.cosines[-1], new[-1]
            found.append(time.perf_counter() - begun)
        return float(np.median(found))

    short, long = make_history([[1.0, 2.0, 3.0]], [1.0] * 3), History(TASKS)
    row = short._rows.values
    long._rows.add(np.repeat(row, 150_000, axis=0))
    long._angles.add(np.repeat(np.arange(10.0)[None], 150_000, axis=0) * 0 + 1)
    assert seconds(long) < 5 * seconds(short)


# --- how it shows itself -------------------------------------------------------------------------


def test_a_history_says_what_it_holds() -> None:
    history = make_history([[4.0, 1.0]] * 1200, [0.5, 1.0])
    assert repr(history) == "History(1,200 steps of rul, health; imbalance 2 in the median step)"
    assert repr(history[3:4]) == "History(1 step of rul, health; imbalance 2 in the median step)"
    assert repr(History(["a"])) == "History(0 steps of a)"
    many = History([f"t{i}" for i in range(40)])
    assert repr(many) == "History(0 steps of 40 tasks)"
