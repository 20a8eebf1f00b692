"""Following a record gives what reading it gives, however it is written, in bounded memory."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gaba
from _web_records import append, as_of_0_1, header, read, step_lines, write
from gaba.web._buckets import Buckets, stride_for
from gaba.web.follow import CELLS, MOST_TASKS, Follower

COLUMNS = ("steps", "measured", "finite", "losses", "norms", "multipliers", "weights")
COLUMNS += ("contributions", "shares", "saturated", "imbalance", "times", "cosines")


def followed(path: Path) -> Follower:
    follower = Follower(path)
    exhaust(follower)
    return follower


def exhaust(follower: Follower) -> None:
    while follower.advance():
        pass


def assert_same(follower: Follower, history: gaba.History) -> None:
    assert follower.tasks == history.tasks
    assert follower.total == len(history)
    for name in COLUMNS:
        found, expected = getattr(follower.latest, name), getattr(history, name)
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)
    assert follower.latest.about == history.about


# --- the same as History.read --------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [("one",), ("a", "b"), ("x", "y", "z", "w", "v")])
@pytest.mark.parametrize("cosines", [False, True])
def test_a_followed_record_is_what_history_reads(
    tasks: tuple[str, ...], cosines: bool, tmp_path: Path
) -> None:
    lines = step_lines(200, tasks, cosines=cosines)
    lines.insert(90, json.dumps({"about": {"metric": "euclidean", "measurement": "exact"}}) + "\n")
    path = write(tmp_path / "run.jsonl", lines, tasks, subset="x", seed=3)
    follower, history = followed(path), read(path)
    assert_same(follower, history)
    assert follower.state == "following"
    assert follower.header is not None
    assert follower.header.meta == {"subset": "x", "seed": 3}
    assert follower.skipped == int((~history.finite).sum())
    np.testing.assert_allclose(follower.saturated, history.saturated.mean(axis=0))
    assert follower.diagnose()
    assert str(follower.diagnosis) == str(gaba.diagnose(history))
    assert not follower.diagnose()


def test_a_record_of_version_0_1_is_followed(tmp_path: Path) -> None:
    """It has weights and a gain in place of multipliers."""
    path = write(tmp_path / "run.jsonl", as_of_0_1(step_lines(200, ("a", "b"), cosines=True), 3.0))
    follower = followed(path)
    assert_same(follower, read(path))
    steps = follower.latest
    present = ~np.isnan(steps.multipliers)
    assert 0 < (~present).sum() < 20
    np.testing.assert_allclose(steps.multipliers[present], 3 * steps.weights[present])
    assert (steps.weights[~present] == 0).all()


def test_a_record_of_a_real_run_is_followed(tmp_path: Path) -> None:
    import torch

    w = torch.nn.Parameter(torch.ones(3))
    balancer = gaba.Balancer(["a", "b"], shared=[w], method="equal-share")
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks, {"note": 1}) as record:
        follower = Follower(record.path)
        for i in range(20):
            record.write(balancer.backward({"a": (w * (i + 1)).sum(), "b": (3 * w).sum()}))
            exhaust(follower)
            assert follower.total == i + 1
    assert_same(follower, read(record.path))


@pytest.mark.parametrize("seed", range(5))
def test_it_does_not_matter_how_the_file_is_written(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    lines = step_lines(60, ("a", "b"), seed=seed, cosines=True)
    whole = (header(("a", "b")) + "".join(lines)).encode()
    path = tmp_path / "run.jsonl"
    path.touch()
    follower = Follower(path)
    at = 0
    while at < len(whole):
        size = int(rng.integers(1, 3000))
        with path.open("ab") as file:
            file.write(whole[at : at + size])
        at += size
        exhaust(follower)
        complete = whole[:at].count(b"\n")
        assert follower.total == max(0, complete - 1)
        assert follower.state == ("following" if complete else "waiting")
    assert_same(follower, read(path))


def test_a_line_that_is_cut_is_waited_for(tmp_path: Path) -> None:
    one, two = step_lines(2, ("a", "b"))
    path = write(tmp_path / "run.jsonl", [one, two[:40]])
    follower = followed(path)
    assert (follower.total, follower.error) == (1, "")
    append(path, [two[40:]])
    exhaust(follower)
    assert_same(follower, read(path))


# --- files that change, go, or are none ----------------------------------------------------------


@pytest.mark.parametrize("how", ["rewritten", "replaced", "cut", "same size"])
def test_another_file_of_that_name_is_begun_anew(how: str, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", step_lines(50, ("a", "b"), seed=1))
    follower = followed(path)
    before = follower.generation
    if how == "cut":
        whole = path.read_bytes().splitlines(keepends=True)
        os.truncate(path, sum(map(len, whole[:21])))
    elif how == "replaced":
        write(tmp_path / "other", step_lines(80, ("x", "y", "z"), seed=2), ("x", "y", "z"))
        (tmp_path / "other").replace(path)
    elif how == "same size":
        path.write_bytes(path.read_bytes().replace(b'"time": 10', b'"time": 20'))
    else:
        write(path, step_lines(90, ("a", "b"), seed=3))
    exhaust(follower)
    assert follower.generation != before
    assert_same(follower, read(path))


def test_a_file_that_goes_and_comes_back_is_followed_again(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", step_lines(5, ("a", "b")))
    follower = followed(path)
    path.rename(tmp_path / "away")
    exhaust(follower)
    assert follower.state == "error"
    assert "No such file" in follower.error
    (tmp_path / "away").rename(path)
    append(path, step_lines(3, ("a", "b"), first=5))
    exhaust(follower)
    assert_same(follower, read(path))
    assert follower.state == "following"


MALFORMED = {
    "no JSON": "{oops}\n",
    "an empty line": "\n",
    "a list": "[1, 2]\n",
    "a task is missing": step_lines(1, ("a",))[0],
    "no number": step_lines(1, ("a", "b"))[0].replace('"time": 1', '"time": "late", "x": 1'),
    "no truth": step_lines(1, ("a", "b"))[0].replace('"measured": true', '"measured": "much"'),
    "no step": step_lines(1, ("a", "b"))[0].replace('"step": 0', '"step": null'),
    "binary": "\x00\x01\x02\n",
    "deep": "[" * 100_000 + "\n",
    "other cosines": step_lines(1, ("a", "b"))[0].replace('"time"', '"cosines": [[1]], "time"'),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_line_is_named_and_what_was_before_is_kept(what: str, tmp_path: Path) -> None:
    lines = step_lines(12, ("a", "b"))
    path = write(tmp_path / "run.jsonl", [*lines[:7], MALFORMED[what], *lines[7:]])
    follower = followed(path)
    assert follower.state == "error"
    assert f"{path}, line 9: not a step of the tasks ('a', 'b')" in follower.error
    assert "\n" not in follower.error
    assert follower.total == 7
    append(path, step_lines(1, ("a", "b"), first=12))
    exhaust(follower)
    assert follower.total == 7
    write(path, lines)
    exhaust(follower)
    assert_same(follower, read(path))


HUGE = str(10**400)  # an integer that is no float
TOO_LONG = "9" * 5000  # more digits than Python reads
FIELDS = {
    "step": r'("step": )0',
    "time": r'("time": )[\d.]+',
    "loss": r'("losses": {"a": )[\d.]+',
    "norm": r'("norms": {"a": )[\d.]+',
    "multiplier": r'("multipliers": {"a": )[\d.]+',
    "measured": r'("measured": )true',
    "cosine": r'("cosines": \[\[)1.0',
}


@pytest.mark.parametrize("number", [HUGE, f"-{HUGE}", TOO_LONG, "1e300", "1e999", "-1e999", "NaN"])
@pytest.mark.parametrize("field", FIELDS)
def test_no_number_stops_the_follower(number: str, field: str, tmp_path: Path) -> None:
    """It is a line that cannot be read, or a value that is not finite; never an exception."""
    lines = step_lines(12, ("a", "b"), cosines=True)
    bad, count = re.subn(FIELDS[field], rf"\g<1>{number}", lines[0], count=1)
    assert count == 1
    path = write(tmp_path / "run.jsonl", [*lines, bad])
    follower = followed(path)
    if follower.error:
        assert f"{path}, line 14: not a step of the tasks ('a', 'b')" in follower.error
        assert follower.total == 12
    else:
        assert follower.total == 13
        assert not np.isposinf(follower.since(0, 0, 99).mean).any()  # type: ignore[union-attr]
    write(path, lines)
    exhaust(follower)
    assert_same(follower, read(path))


@pytest.mark.parametrize(
    "first", ["{}\n", "no header\n", '{"gaba": "0", "tasks": []}\n', "\n", "[]\n"]
)
def test_a_file_that_is_no_record_says_so(first: str, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(first)
    assert f"{path}, line 1: not the header of a gaba record" in followed(path).error


def test_a_line_without_end_is_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaba.web._tail.LONGEST", 3_000_000)
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"x" * 5_000_000)
    assert "line 1: longer than" in followed(path).error


# --- few points for many steps -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_buckets_hold_least_mean_and_greatest_of_every_stretch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 20, (int(rng.integers(1, 3000)), 3)))
    values[rng.random(values.shape) < 0.2] = np.nan
    capacity = int(rng.choice([4, 16, 64]))
    buckets = Buckets(3, capacity)
    at = 0
    while at < len(values):
        size = int(rng.integers(1, 200))
        part = values[at : at + size]
        buckets.add(part, np.arange(at, at + len(part)))
        at += size
    assert buckets.total == len(values)
    assert -(-len(values) // buckets.stride) <= capacity
    stride = buckets.stride * int(rng.choice([1, 2, 4]))
    found = buckets.slice(stride)
    for i, start in enumerate(range(0, len(values), stride)):
        for k in range(3):
            known = values[start : start + stride, k]
            known = known[~np.isnan(known)]
            if not known.size:
                assert np.isnan([found.low[k, i], found.mean[k, i], found.high[k, i]]).all()
                continue
            assert found.low[k, i] == known.min()
            assert found.high[k, i] == known.max()
            assert found.mean[k, i] == pytest.approx(known.mean(), rel=1e-9)


def test_the_memory_does_not_grow_with_the_steps() -> None:
    buckets = Buckets(10)
    chunk = np.random.default_rng(0).random((20_000, 10))
    sizes = []
    for i in range(50):
        buckets.add(chunk, np.arange(20_000) + 20_000 * i)
        sizes.append(buckets.nbytes)
    assert buckets.total == 1_000_000
    assert max(sizes[1:]) == sizes[0] <= 8 * (4 * 10 + 1) * 2**14


def test_the_latest_steps_are_a_window_and_the_rest_is_in_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaba.web.follow.WINDOW", 100)
    path = write(tmp_path / "run.jsonl", step_lines(1000, ("a", "b")))
    follower, history = followed(path), read(path)
    assert follower.total == 1000
    np.testing.assert_array_equal(follower.latest.steps, np.arange(900, 1000))
    follower.diagnose()
    assert str(follower.diagnosis) == str(gaba.diagnose(history[900:]))
    found = follower.since(0, 0, 64)
    assert found is not None
    assert found.stride == stride_for(1000, 64) == 16
    at = follower.names.index("norms/1")
    expected = [np.nanmax(history.norms[i : i + 16, 1]) for i in range(0, 1000, 16)]
    np.testing.assert_array_equal(found.high[at], expected)


def test_a_thousand_tasks_are_followed_in_bounded_memory(tmp_path: Path) -> None:
    tasks = tuple(f"task{k}" for k in range(1000))
    path = write(tmp_path / "run.jsonl", step_lines(12, tasks), tasks)
    follower = followed(path)
    assert (follower.total, follower.error) == (12, "")
    np.testing.assert_array_equal(follower.latest.steps, [8, 9, 10, 11])


@pytest.mark.parametrize("k", [1, 2, 13, 100, MOST_TASKS])
def test_the_memory_of_a_run_is_bounded_for_any_number_of_tasks(k: int, tmp_path: Path) -> None:
    """Least, mean, greatest and count of as many numbers as the window has, and no more."""
    tasks = tuple(f"task{i}" for i in range(k))
    path = write(tmp_path / "run.jsonl", step_lines(3, tasks), tasks)
    follower = followed(path)
    assert follower._run is not None
    buckets, series = follower._run.buckets, len(follower.names)
    for first in range(0, 40_000, 500):
        steps = np.arange(first, first + 500, dtype=np.float64)
        buckets.add(np.repeat(steps[:, None], series, axis=1), np.zeros(500, dtype=np.int64))
    assert buckets.nbytes <= 4 * 8 * CELLS + 8 * (1 << 14)
    found = buckets.slice(1)
    assert found.high[:, -1].max() == 39_999
    assert found.low.shape[1] >= 64


def test_more_tasks_than_a_page_can_show_are_told_and_not_followed(tmp_path: Path) -> None:
    tasks = tuple(f"t{i}" for i in range(MOST_TASKS + 1))
    path = write(tmp_path / "run.jsonl", step_lines(1, tasks), tasks)
    follower = followed(path)
    assert follower.state == "error"
    assert follower.error.startswith(f"{path}, line 1: 1,025 tasks: the page follows at most 1,024")
    assert follower.total == 0


@pytest.mark.parametrize("what", ["others", "groups"])
def test_names_that_are_new_in_every_line_do_not_fill_the_memory(what: str, tmp_path: Path) -> None:
    lines = []
    for n, line in enumerate(step_lines(400, ("a", "b"))):
        value: Any = n if what == "others" else {"a": n, "b": 1}
        beside = {f"{what}{i}": value for i in (0, n)}  # the first name comes again
        lines.append(json.dumps({**json.loads(line), what: beside}) + "\n")
    follower = followed(write(tmp_path / "run.jsonl", lines))
    assert (follower.total, follower.error) == (400, "")
    found = getattr(follower.latest, what)
    assert len(found) <= 80
    assert found[f"{what}0"].reshape(400, -1)[:, 0].tolist() == list(range(400))


def test_a_stretch_of_many_tasks_is_read_again_in_bounded_memory(tmp_path: Path) -> None:
    """A stretch of more numbers than the window has comes from the buckets."""
    tasks = tuple(f"task{k}" for k in range(400))
    path = write(tmp_path / "run.jsonl", step_lines(600, tasks), tasks)
    follower = followed(path)
    series, at = len(follower.names), follower.names.index("norms/7")
    whole, near = follower.between(0, 599, 2048), follower.between(300, 301, 2048)
    assert whole is not None
    assert near is not None
    assert 600 * series > CELLS
    assert whole.stride > near.stride == 1
    steps = near.low[0].astype(int).tolist()
    assert {300, 301} <= set(steps)
    assert len(steps) * series <= CELLS
    expected = read(path).norms[steps, 7]
    np.testing.assert_array_equal(near.low[at], expected)


def test_a_short_stretch_is_read_again_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = step_lines(2000, ("a", "b"))
    lines.insert(700, '{"about": {"metric": "euclidean"}}\n')
    path = write(tmp_path / "run.jsonl", lines)
    monkeypatch.setattr(
        "gaba.web.follow.Buckets", lambda series, capacity=64: Buckets(series, capacity)
    )
    follower, history = followed(path), read(path)
    found = follower.between(801, 820, 2048)
    assert found is not None
    assert found.stride == 1
    steps = found.low[0].astype(int)
    assert {*range(801, 821)} <= set(steps.tolist())
    at = follower.names.index("weights/0")
    np.testing.assert_array_equal(found.low[at], history.weights[steps, 0])
    coarse = follower.between(0, 2000, 16)
    assert coarse is not None
    assert coarse.low.shape[1] <= 16


def test_an_opener_decides_what_is_read() -> None:
    content = (header(("a", "b")) + "".join(step_lines(4, ("a", "b")))).encode()
    opened: list[int] = []

    def opener() -> Any:
        opened.append(1)
        raise PermissionError(13, "Permission denied")

    follower = Follower("some/where.jsonl", opener)
    assert not follower.advance()
    assert follower.error == "some/where.jsonl: Permission denied"
    assert opened == [1]
    assert io.BytesIO(content).readline().startswith(b'{"gaba"')
