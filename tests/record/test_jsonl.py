"""What was recorded can be read again, line by line or whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from _steps import make_history, make_step
from gaba.record import History, RunRecord, Step, read
from gaba.record.jsonl import COMBINED, ENGINES, Row, header, parse, parse_lines

TASKS = ("a", "b")
HEADER = '{"gaba": "0", "tasks": ["a", "b"], "meta": {}}\n'
COLUMNS = ["steps", "measured", "finite", "combined", "engines", "losses", "norms", "multipliers"]
COLUMNS += ["weights", "contributions", "saturated", "imbalance", "shares"]


def some_steps(n: int = 300) -> History:
    rng = np.random.default_rng(0)
    norms, multipliers = np.exp(rng.normal(size=(2, n, 2)))
    losses = norms.copy()
    norms[2, 1] = losses[2, 1] = multipliers[2, 1] = np.nan  # missing
    losses[4, 0] = math.inf
    saturated = rng.random((n, 2)) < 0.1
    first = rng.random(n)
    shares = np.stack([first, 1 - first], axis=1)
    engine = np.array(ENGINES)[np.arange(n) % 4].tolist()
    shares[[name in ("", "norms") for name in engine]] = np.nan
    shares[2] = [1.0, 0.0]
    return make_history(
        norms,
        multipliers,
        losses=losses,
        saturated=saturated,
        measured=[name != "" for name in engine],
        engine=engine,
        shares=shares,
        tasks=TASKS,
    )


def line_of(history: History, i: int = 0) -> str:
    return json.dumps(history[i].asdict()) + "\n"


# --- the whole file ------------------------------------------------------------------------------


def test_a_file_read_again_is_the_same_history(tmp_path: Path) -> None:
    history, path = some_steps(), tmp_path / "history.jsonl"
    history.write(path, {"note": "x"})
    again = read(path)
    assert again.tasks == history.tasks
    for name in COLUMNS:
        one, other = getattr(history, name), getattr(again, name)
        one = np.where(np.isfinite(one), one, np.nan) if one.dtype.kind == "f" else one
        np.testing.assert_array_equal(other, one, name)  # JSON has neither infinity nor NaN
    np.testing.assert_allclose(again.times, history.times, atol=1e-3)
    assert header(path.read_bytes().splitlines()[0], path).meta == {"note": "x"}
    assert not list(tmp_path.glob("*.partial"))


def test_cosines_and_what_holds_for_many_steps_survive_the_file(tmp_path: Path) -> None:
    gramian, about = [[4.0, 1.0], [1.0, 9.0]], {"metric": "euclidean", "measurement": "exact"}
    steps = [
        make_step([1.0, 0.5], [2.0, 3.0], gramian=gramian if i % 2 else None, about=about, step=i)
        for i in range(6)
    ]
    path, names = tmp_path / "history.jsonl", steps[0].tasks
    with RunRecord(path, names) as record:
        for step in steps:
            record.write(step)
    again = read(path)
    assert again.about == about
    assert np.isnan(again.cosines[::2]).all()
    np.testing.assert_allclose(again.cosines[1], [[1, 1 / 6], [1 / 6, 1]], rtol=1e-15)
    np.testing.assert_allclose(again.shares[1], steps[1].shares, rtol=1e-14)
    with RunRecord(path, names, resume_at=3) as record:
        record.write(steps[3])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    said = [line["about"] for line in lines if "about" in line]
    assert said == [about, {**about, "end": "finished"}]  # said once, and kept when resumed
    assert read(path).about == about
    assert len(read(path)) == 4


def test_a_record_says_how_its_run_ended(tmp_path: Path) -> None:
    def last(path: Path) -> dict[str, str]:
        return json.loads(path.read_text().splitlines()[-1])["about"]

    step = make_step([1.0, 0.5], [2.0, 3.0], about={"metric": "euclidean"})
    path = tmp_path / "history.jsonl"

    def diverge() -> None:
        with RunRecord(path, step.tasks) as record:
            record.write(step)
            raise ValueError("the loss\nis NaN")

    with pytest.raises(ValueError, match="the loss"):
        diverge()
    said = {"metric": "euclidean", "end": "failed", "error": "ValueError: the loss is NaN"}
    assert last(path) == said
    record = RunRecord(path, step.tasks, resume_at=1)
    assert '"end"' not in path.read_text()  # the run goes on
    record.close()
    record.close()
    assert path.read_text().count('"end"') == 1
    assert last(path) == {"metric": "euclidean", "end": "finished"}
    assert read(path).about == {"metric": "euclidean"}


def test_a_long_file_is_read_whole_or_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    line = line_of(make_history([[1.0, 1.0]], [1.0, 1.0], tasks=TASKS))
    path.write_text(HEADER + line * 6000)
    assert len(read(path)) == 6000
    bounded = History.read(path, keep=1000)
    assert (len(bounded) < 2000, bounded.recorded) == (True, 6000)


def test_a_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    line = {
        "step": 4,
        "measured": True,
        "combined": "by-hand",
        "finite": True,
        "losses": {"a": 1.0, "b": None},
        "norms": {"a": 4.0, "b": None},
        "weights": {"a": 0.25, "b": 0.75},
        "contributions": {"a": 1.0, "b": None},
        "saturated": {"a": False, "b": True},
        "gain": 6.0,
        "imbalance": None,
    }
    missing = {**line, "weights": {"a": 1.0, "b": 0.0}, "time": 5.5}
    path = tmp_path / "history.jsonl"
    path.write_text(HEADER + "".join(json.dumps(each) + "\n" for each in (line, missing)))
    history = read(path)
    np.testing.assert_array_equal(history.multipliers, [[1.5, 4.5], [6.0, np.nan]])
    np.testing.assert_array_equal(history.weights, [[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(history.contributions[:, 0], [6.0, 24.0])
    np.testing.assert_array_equal(history.saturated, [[False, True]] * 2)
    np.testing.assert_array_equal(history.times, [np.nan, 5.5])
    assert history.about == {}
    assert history.engines.tolist() == ["norms", "norms"]
    assert np.isnan(history.shares).all()


def older(step: Step, *without: str) -> str:
    """The line of ``step`` as it was before there were engines."""
    found = {name: value for name, value in step.asdict().items() if name not in without}
    del found["engine"]
    return json.dumps(found) + "\n"


def test_the_engine_of_an_older_line_is_norms_if_anything_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    steps = [make_step([1.0, 2.0], [3.0, 1.0], measured=i % 2 == 0, tasks=TASKS) for i in range(4)]
    path.write_text(HEADER + "".join(older(step) for step in steps))
    assert read(path).engines.tolist() == ["norms", "", "norms", ""]
    assert read(path)[1].engine == ""


GRAMIANS = {
    "all there": ([0.5, 2.0, 1.0], [[4.0, 1.0, 0.5], [1.0, 1.0, -0.9], [0.5, -0.9, 9.0]]),
    "one opposes": ([1.0, 1.0, 0.1], [[4.0, -1.5, 0.5], [-1.5, 1.0, 0.0], [0.5, 0.0, 9.0]]),
    "one is missing": ([0.5, np.nan, 1.0], [[4.0, np.nan, 0.5], [np.nan] * 3, [0.5, np.nan, 9]]),
    "one has no gradient": ([0.5, 2.0, 1.0], [[4.0, 0.0, 0.5], [0.0] * 3, [0.5, 0.0, 9.0]]),
    "they cancel": ([1.0, 1.0, np.nan], [[1.0, -1.0, np.nan], [-1.0, 1.0, np.nan], [np.nan] * 3]),
}


@pytest.mark.parametrize("case", GRAMIANS)
def test_the_shares_of_an_older_line_follow_from_its_cosines(case: str, tmp_path: Path) -> None:
    """They are m_k (Gm)_k / mᵀGm over the tasks present, whatever the line holds of them."""
    multipliers, gramian = (np.array(part) for part in GRAMIANS[case])
    step = make_step(multipliers, np.sqrt(gramian.diagonal()), gramian=gramian)
    m, whole = np.nan_to_num(multipliers), np.nan_to_num(gramian)
    total = m @ whole @ m
    expected = m * (whole @ m) / total if total else np.full(3, np.nan)
    path = tmp_path / "history.jsonl"
    begun = HEADER.replace('["a", "b"]', json.dumps(step.tasks))
    path.write_text(begun + older(step, "shares") + older(step))
    np.testing.assert_allclose(read(path).shares, [expected] * 2, rtol=1e-12)
    np.testing.assert_allclose(step.shares, expected, rtol=1e-12)


# --- malformed, cut and resumed ------------------------------------------------------------------

STEP = line_of(make_history([[1.0, 1.0]], [1.0, 1.0], tasks=TASKS))
MALFORMED = {
    "no JSON": "{oops}\n",
    "an empty line": "\n",
    "a list": "[1, 2]\n",
    "a number": "3\n",
    "binary": "\x00\x01\n",
    "deep": "[" * 100_000 + "\n",
    "a huge number": f'{{"step": {"1" * 5000}}}\n',
    "no about": '{"about": 3}\n',
    "a step without values": '{"step": 1}\n',
    "a task is missing": STEP.replace('"b"', '"c"'),
    "text for a number": STEP.replace('"multipliers": {"a": 1.0', '"multipliers": {"a": "1"'),
    "no step": STEP.replace('"step": 0', '"step": null'),
    "measured by a word": STEP.replace('"measured": true', '"measured": "yes"'),
    "combined otherwise": STEP.replace('"caller"', '"magic"'),
    "another engine": STEP.replace('"engine": "norms"', '"engine": "magic"'),
    "shares of others": STEP.replace('"step"', '"shares": {"a": 1.0}, "step"'),
    "cosines of others": STEP.replace('"step"', '"cosines": [[1]], "step"'),
    "too large": STEP.replace('"losses": {"a": 1.0', f'"losses": {{"a": 1{"0" * 400}'),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_line_is_named_by_file_and_number(what: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(HEADER + STEP + MALFORMED[what] + STEP)
    said = r"history\.jsonl, line 3: not a step of the tasks \('a', 'b'\) \(.+\): delete the line"
    with pytest.raises(ValueError, match=said):
        read(path)
    with pytest.raises(ValueError, match=said):
        RunRecord(path, TASKS, resume_at=5)
    assert path.read_text() == HEADER + STEP + MALFORMED[what] + STEP
    found = parse_lines(path.read_bytes().split(b"\n")[1:-1], TASKS, path)
    assert (len(found.rows), found.lines) == (1, [0])
    assert "history.jsonl, line 3: " in found.error


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", '{"gaba": "0", "tasks": "ab"}', '{"gaba": "0", "tasks": []}', "\x00"]
)
def test_a_malformed_header_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n" + STEP)
    for attempt in (read, lambda path: RunRecord(path, TASKS, resume_at=0)):
        with pytest.raises(ValueError, match=r"history\.jsonl, line 1: not the header"):
            attempt(path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"picture\.png, line 1"):
        read(path)


def test_numbers_that_json_does_not_have_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(
        HEADER.replace("{}", '{"lr": NaN, "most": [1e999, -Infinity, 2.5]}')
        + STEP.replace('"norms": {"a": 1.0', '"norms": {"a": NaN')
    )
    assert header(path.read_bytes().splitlines()[0], path).meta == {
        "lr": None,
        "most": [None, None, 2.5],
    }
    np.testing.assert_array_equal(read(path).norms, [[np.nan, 1]])


def test_resuming_a_record_drops_the_steps_that_come_again(tmp_path: Path) -> None:
    path, history = tmp_path / "sub" / "history.jsonl", some_steps(6)
    with RunRecord(path, TASKS) as record:
        for step in history[:5]:
            record.write(step)
    with path.open("a") as file:
        file.write('{"step": 5, "meas')  # killed here
    assert len(read(path)) == 5
    with RunRecord(path, TASKS, resume_at=3) as record:
        for step in history[3:]:
            record.write(step)
    np.testing.assert_array_equal(read(path).steps, range(6))
    np.testing.assert_array_equal(read(path).multipliers, history.multipliers)


def test_a_run_that_was_killed_before_its_first_line_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"gaba": "0.2')
    RunRecord(path, TASKS, {"seed": 3}, resume_at=0).close()
    assert header(path.read_bytes().splitlines()[0], path).meta == {"seed": 3}
    assert len(read(path)) == 0


def test_a_record_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    RunRecord(path, TASKS).close()
    with pytest.raises(FileExistsError, match="resume"):
        RunRecord(path, TASKS)
    with pytest.raises(ValueError, match=r"'a', 'b'"):
        RunRecord(path, ["a", "c"], resume_at=0)


@pytest.mark.parametrize("value", [math.nan, object()])
def test_what_is_no_json_leaves_no_file(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="meta must be JSON"):
        RunRecord(tmp_path / "sub" / "history.jsonl", TASKS, {"lr": value})
    assert not list(tmp_path.iterdir())


# --- line by line --------------------------------------------------------------------------------


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond some bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_with_the_file_and_what_was_written_stays(
    full_disk: Callable[[int], None], tmp_path: Path
) -> None:
    path, steps = tmp_path / "run.jsonl", list(some_steps(20))
    record = RunRecord(path, TASKS)
    for step in steps[:10]:
        record.write(step)
    full_disk(path.stat().st_size + 20)
    with pytest.raises(OSError, match=re.escape(f"'{path}'")) as caught:
        record.write(steps[10])
    assert caught.value.filename == str(path)
    assert [step.step for step in read(path)] == [step.step for step in steps[:10]]
    full_disk(1 << 20)  # there is room again: the line that was cut is completed
    record.write(steps[11])
    record.close()
    assert [step.step for step in read(path)] == [step.step for step in steps[:12]]


def test_a_full_disk_from_the_first_line_on(
    full_disk: Callable[[int], None], tmp_path: Path
) -> None:
    full_disk(0)
    with pytest.raises(OSError, match=re.escape(f"'{tmp_path / 'run.jsonl'}'")):
        RunRecord(tmp_path / "run.jsonl", TASKS)
    with pytest.raises(OSError, match=re.escape("whole.jsonl")):
        some_steps(20).write(tmp_path / "whole.jsonl")
    assert not (tmp_path / "whole.jsonl").exists()


def test_resuming_over_a_damaged_line_names_file_and_line_and_leaves_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.jsonl"
    for damaged in ("garbage", '{"step": 1}', ""):
        path.write_text(HEADER + line_of(some_steps()) + damaged + "\n")
        content = path.read_bytes()
        with pytest.raises(ValueError, match=re.escape(f"{path}, line 3: not a step")):
            RunRecord(path, TASKS, resume_at=3)
        assert path.read_bytes() == content
    path.write_text("garbage\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 1: not the header")):
        RunRecord(path, TASKS, resume_at=3)


def test_lines_of_a_growing_file_give_the_history_of_the_whole(tmp_path: Path) -> None:
    whole, path = some_steps(60), tmp_path / "history.jsonl"
    whole.about = {"metric": "euclidean"}
    whole.write(path)
    lines = path.read_bytes().splitlines()[1:]
    history = History(TASKS)
    for start in range(0, len(lines), 7):
        found = parse_lines(lines[start : start + 7], TASKS, path, first=start + 2)
        assert found.error == ""
        history.add(found.rows, found.about)
    for name in (*COLUMNS, "times"):
        np.testing.assert_array_equal(getattr(history, name), getattr(read(path), name), name)
    assert history.about == {"metric": "euclidean"}


def test_a_line_is_a_step_or_says_something_of_many() -> None:
    found = parse(STEP.encode(), TASKS, "here")
    assert isinstance(found, Row)
    assert found.cosines is None
    assert found.numbers[:4] == [0.0, 1.0, COMBINED.index("caller"), ENGINES.index("norms")]
    np.testing.assert_array_equal(found.numbers[6:], [1.0] * 6 + [0.0] * 2 + [np.nan] * 2)
    assert parse(b'{"about": {"metric": 3}}', TASKS, "here") == {"metric": "3"}
