"""What a run is doing follows from its record, its folder and a clock that the test sets."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import gaba
from _web_records import append, step_lines, write
from gaba.methods import METHODS
from gaba.web._advice import OBSERVE, on_cosines
from gaba.web._events import status
from gaba.web._folder import Folder
from gaba.web._state import Facts, doing
from gaba.web.follow import Follower

WRITTEN = 1.7e9
"""When the records of these tests were last written, in seconds since 1970."""


def followed(path: Path) -> Follower:
    follower = Follower(path)
    while follower.advance():
        pass
    return follower


def record(folder: Path, count: int, ending: str = "", **meta: Any) -> Path:
    """A record of so many finite steps, with a line of how it ended."""
    every = step_lines(4 * count + 4, ("a", "b"))
    lines = [line for line in every if json.loads(line)["finite"]][:count]
    numbered = [{**json.loads(line), "step": i} for i, line in enumerate(lines)]
    lines = [json.dumps(line) + "\n" for line in numbered]
    path = write(folder / "run" / "history.jsonl", [*lines, ending], **meta)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def ending(**said: str) -> str:
    return json.dumps({"about": {"metric": "euclidean", **said}}) + "\n"


@pytest.mark.parametrize(
    ("later", "word"), [(0.0, "running"), (59.9, "running"), (60.0, "stalled"), (1e9, "stalled")]
)
def test_a_run_is_stalled_sixty_seconds_after_its_last_line(
    later: float, word: str, tmp_path: Path
) -> None:
    follower = followed(record(tmp_path, 30))
    found = follower.doing(WRITTEN + later)
    assert found.word == word
    assert "30 steps so far" in found.said
    assert found.since == (WRITTEN if word == "stalled" else None)


def test_a_new_line_lets_a_stalled_run_go_on(tmp_path: Path) -> None:
    path = record(tmp_path, 30)
    follower = followed(path)
    assert follower.doing(WRITTEN + 100).word == "stalled"
    append(path, step_lines(1, ("a", "b"), first=30, seed=1))
    os.utime(path, (WRITTEN + 99, WRITTEN + 99))
    follower.advance()
    assert follower.doing(WRITTEN + 100).word == "running"


@pytest.mark.parametrize(("count", "word"), [(29, "stalled"), (30, "finished"), (31, "finished")])
def test_a_run_that_made_its_steps_is_finished(count: int, word: str, tmp_path: Path) -> None:
    follower = followed(record(tmp_path, count, steps=30))
    assert follower.doing(WRITTEN + 1e6).word == word


@pytest.mark.parametrize("steps", ["30", 30.0, True, 0, -30, None, [30]])
def test_only_a_whole_number_of_steps_is_a_plan(steps: object, tmp_path: Path) -> None:
    follower = followed(record(tmp_path, 30, steps=steps))
    assert follower.doing(WRITTEN).word == "running"


def test_a_plan_says_how_long_is_left(tmp_path: Path) -> None:
    """The made records have a step every quarter of a second."""
    path = write(tmp_path / "run.jsonl", step_lines(30, ("a", "b")), steps=1030)
    follower = followed(path)
    assert follower.doing(0.0).said == "Step 30 of at most 1,030, about 4 min left."


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        ({"finished": True, "steps": 30}, "finished"),
        ({"finished": False, "steps": 30}, "stalled"),
        ({"finished": True, "steps": 29}, "stalled"),
        ({"finished": 1, "steps": 30}, "stalled"),
        ([True, 30], "stalled"),
    ],
)
def test_an_evaluation_of_these_steps_finishes_a_run(
    metrics: object, word: str, tmp_path: Path
) -> None:
    """A turbofan run that stops early makes fewer steps than planned."""
    path = record(tmp_path, 30, steps=3000)
    follower = followed(path)
    assert follower.doing(WRITTEN + 60).word == "stalled"
    path.with_name("metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    before = follower.version
    follower.advance()
    assert follower.doing(WRITTEN + 60).word == word
    if word == "finished":
        assert follower.version > before  # so the page is told


@pytest.mark.parametrize("text", ["", "{oops", "[" * 100_000, "null", '{"finished": true}'])
def test_an_evaluation_that_is_none_changes_nothing(text: str, tmp_path: Path) -> None:
    path = record(tmp_path, 3)
    path.with_name("metrics.json").write_text(text, encoding="utf-8")
    assert followed(path).doing(WRITTEN).word == "running"


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_no_link_beside_a_record_is_followed(tmp_path: Path) -> None:
    path = record(tmp_path / "runs", 30)
    secret = tmp_path / "metrics.json"
    secret.write_text('{"finished": true, "steps": 30}', encoding="utf-8")
    path.with_name("metrics.json").symlink_to(secret)
    folder = Folder(tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match=r"history\.jsonl"):
        folder.open_beside("run/history.jsonl", "metrics.json")
    with pytest.raises(FileNotFoundError, match="no record"):
        folder.open_beside("other.jsonl", "history.jsonl")
    with folder.open_beside("run/history.jsonl", "history.jsonl") as file:
        assert file.readline().startswith(b'{"gaba"')


def test_a_record_says_how_it_ended(tmp_path: Path) -> None:
    follower = followed(record(tmp_path, 30, ending(end="finished"), steps=3000))
    found = follower.doing(WRITTEN + 1e6)
    assert (found.word, found.code) == ("finished", "gaba report RUN -o report.html")
    why = "FloatingPointError: the loss is NaN"
    follower = followed(record(tmp_path, 30, ending(end="failed", error=why), steps=30))
    found = follower.doing(WRITTEN)
    assert (found.word, found.said) == ("failed", f"It ended after 30 steps: {why}.")
    stopped = ending(end="failed", error="KeyboardInterrupt")
    interrupted = followed(record(tmp_path, 30, stopped, subset="FD001", run_dir="r"))
    found = interrupted.doing(WRITTEN)
    assert (found.word, found.said) == ("failed", "Interrupted after 30 steps.")
    assert found.code == "gaba train turbofan --resume r"
    assert status(follower, found)["about"] == {"metric": "euclidean"}


def lose(path: Path, count: int) -> None:
    """Append steps whose first loss is NaN."""
    lines = [json.loads(line) for line in step_lines(count, ("a", "b"), first=30, seed=1)]
    lines = [{**line, "finite": False} for line in lines]
    append(path, [json.dumps(line) + "\n" for line in lines])
    os.utime(path, (WRITTEN, WRITTEN))


def test_silence_after_a_step_that_was_not_finite_is_a_failure(tmp_path: Path) -> None:
    path = record(tmp_path, 30, subset="FD001", run_dir="runs/a b", steps=3000)
    lose(path, 7)
    follower = followed(path)
    assert follower.doing(WRITTEN + 59).word == "running"
    found = follower.doing(WRITTEN + 60)
    assert found.word == "failed"
    assert found.said == "The last 7 steps were not finite, and none followed."
    assert found.code == "gaba train turbofan --resume 'runs/a b'"


@pytest.mark.parametrize(("lost", "word"), [(19, "running"), (20, "failed")])
def test_training_that_gave_up_on_what_is_not_finite_failed(
    lost: int, word: str, tmp_path: Path
) -> None:
    path = record(tmp_path, 30, nonfinite_patience=20)
    follower = followed(path)
    lose(path, lost)
    while follower.advance():  # in pieces, as a run is followed
        pass
    assert follower.doing(WRITTEN).word == word


def test_a_run_that_has_not_begun_waits(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.touch()
    os.utime(path, (WRITTEN, WRITTEN))
    follower = followed(path)
    assert follower.doing(WRITTEN).word == "waiting"
    assert follower.doing(WRITTEN + 60).word == "stalled"
    write(path, [])
    os.utime(path, (WRITTEN, WRITTEN))
    follower.advance()
    assert follower.doing(WRITTEN).word == "waiting"
    path.write_text("{oops}\n", encoding="utf-8")
    follower.advance()
    found = follower.doing(WRITTEN)
    assert (found.word, found.said) == ("unreadable", follower.error)


def test_without_a_time_of_writing_nothing_is_stalled() -> None:
    assert math.isnan(Facts().heard)
    assert doing(Facts(steps=3), 1e12).word == "running"


@pytest.mark.parametrize("method", ["gaba", "observe", "equal-share", "inverse", "uniform"])
def test_the_advice_on_cosines_is_true(method: str, tmp_path: Path) -> None:
    """Where the page says that a setting records cosines, a step of it has them."""
    theta = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["a", "b"], [theta], method)
    for _ in range(3):
        balancer.backward({"a": 3 * theta[0], "b": theta.sum()})
    balancer.history.write(tmp_path / "run.jsonl")
    follower = followed(tmp_path / "run.jsonl")
    follower.diagnose()
    told = status(follower, follower.doing(0.0))
    why, code = told["without_cosines"]["why"], told["without_cosines"]["code"]
    assert (told["cosines"] is not None) == (method in ("observe", "equal-share"))
    if told["cosines"] is None:
        assert (why.partition(":")[0], code) == ("Nothing was recorded", OBSERVE)
        names = {"gaba": gaba, "tasks": balancer.tasks, "shared": [theta]}
        made = eval(code, names)
        step = made.backward({"a": 3 * theta[0], "b": theta.sum()})
        assert step.cosines is not None


def test_the_advice_for_many_tasks_is_true() -> None:
    theta = torch.nn.Parameter(torch.ones(20))  # a parameter for each task
    tasks = [f"t{k}" for k in range(20)]
    names = {"gaba": gaba, "tasks": tasks, "shared": [theta]}

    def cosines(code: str) -> torch.Tensor | None:
        losses = {task: (k + 1) * theta[k] for k, task in enumerate(tasks)}
        return eval(code, names).backward(losses).cosines

    assert cosines(OBSERVE) is None
    why, code = on_cosines({"method": "observe"}, 20)
    assert "up to 16 tasks, found 20" in why
    assert cosines(code) is not None
    assert on_cosines({"method": "gaba"}, 1)[1] == ""
    assert {"observe", "equal-share"} <= set(METHODS)
