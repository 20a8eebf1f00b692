"""Step, History and the JSONL file: what was recorded can be read again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import gaba
from _models import TwoStage, batch


@pytest.fixture(name="balancer")
def some_steps() -> gaba.Balancer:
    model = TwoStage([1.0, 50.0, 3.0])
    balancer = gaba.Balancer.paper(model.names, model.trunk)
    for i in range(300):  # more than one chunk
        losses = model.losses(batch(i, n=2))
        if i == 7:
            losses["task1"] = None
        if i == 9 and losses["task0"] is not None:
            losses["task0"] = losses["task0"] * math.inf
        balancer.backward(losses)
    return balancer


COLUMNS = ["steps", "measured", "losses", "norms", "weights", "contributions", "saturated"]
COLUMNS += ["gain", "imbalance", "finite"]


def test_columns_hold_what_the_steps_held() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    steps = [balancer.backward(model.losses(batch(i))) for i in range(5)]
    history = balancer.history
    assert len(history) == 5
    for name in ("losses", "norms", "weights", "contributions", "gain", "imbalance"):
        expected = torch.stack([getattr(s, name) for s in steps]).numpy()
        np.testing.assert_array_equal(getattr(history, name), expected)
    np.testing.assert_array_equal(history.steps, range(5))
    assert history.finite.all()


def test_columns_can_be_read_while_recording_goes_on(balancer: gaba.Balancer) -> None:
    first = balancer.history.weights.copy()
    model = TwoStage([1.0, 50.0, 3.0])
    theta = gaba.Balancer(model.names, model.trunk)
    step = theta.backward(model.losses(batch()))
    balancer.history.append(step)
    np.testing.assert_array_equal(balancer.history.weights[:300], first)
    assert len(balancer.history.weights) == 301


def test_a_file_read_again_is_the_same_history(balancer: gaba.Balancer, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    balancer.history.write(path, {"note": "x"})
    again = gaba.History.read(path)
    assert again.tasks == balancer.tasks
    for name in COLUMNS:
        one, other = getattr(balancer.history, name), getattr(again, name)
        one = np.where(np.isfinite(one), one, np.nan)  # JSON has neither infinity nor NaN
        np.testing.assert_array_equal(np.where(np.isfinite(other), other, np.nan), one, name)
    header = json.loads(path.read_text().splitlines()[0])
    assert header["tasks"] == list(balancer.tasks)
    assert header["meta"] == {"note": "x"}
    assert not list(tmp_path.glob("*.partial"))


def test_asdict_is_plain_json_with_names(balancer: gaba.Balancer) -> None:
    model = TwoStage([1.0, 50.0])
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    found = json.loads(json.dumps(step.asdict(), allow_nan=False))
    assert found["step"] == 0
    assert found["weights"] == dict(zip(model.names, step.weights.tolist(), strict=True))
    assert found["contributions"]["task0"] == pytest.approx(found["contributions"]["task1"])
    assert found["imbalance"] == pytest.approx(1)
    assert found["saturated"] == {"task0": False, "task1": False}
    assert found["finite"] is True
    assert found["combined"] == "by-hand"


def test_resuming_a_record_drops_the_steps_that_come_again(tmp_path: Path) -> None:
    model = TwoStage([1.0, 50.0])
    path = tmp_path / "sub" / "history.jsonl"
    balancer = gaba.Balancer(model.names, model.trunk)
    steps = [balancer.backward(model.losses(batch(i))) for i in range(6)]
    with gaba.RunRecord(path, model.names) as record:
        for step in steps[:5]:
            record.write(step)
    with path.open("a") as file:
        file.write('{"step": 5, "meas')  # killed here
    assert len(gaba.History.read(path)) == 5
    with gaba.RunRecord(path, model.names, resume_at=3) as record:
        for step in steps[3:]:
            record.write(step)
    again = gaba.History.read(path)
    np.testing.assert_array_equal(again.steps, range(6))
    np.testing.assert_array_equal(again.weights, balancer.history.weights)


def test_a_record_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    gaba.RunRecord(path, ["a", "b"]).close()
    with pytest.raises(FileExistsError, match="resume"):
        gaba.RunRecord(path, ["a", "b"])
    with pytest.raises(ValueError, match=r"'a', 'b'"):
        gaba.RunRecord(path, ["a", "c"], resume_at=0)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("", "line 1"),
        ("{}", "line 1"),
        ('{"gaba": "0", "tasks": ["a", "b"]}\nnonsense', "line 2"),
        ('{"gaba": "0", "tasks": ["a", "b"]}\n{"step": 1}', "line 2"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, where: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"history\.jsonl, {where}"):
        gaba.History.read(path)


def test_a_step_of_other_tasks_is_refused(balancer: gaba.Balancer) -> None:
    model = TwoStage([1.0, 50.0])
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    with pytest.raises(ValueError, match="task2"):
        balancer.history.append(step)


def test_times_cosines_and_what_holds_for_many_steps_survive_the_file(tmp_path: Path) -> None:
    model = TwoStage([1.0, 50.0, 3.0])
    balancer = gaba.Balancer(model.names, model.trunk, weighting="equal-share", every=2)
    path = tmp_path / "history.jsonl"
    with gaba.RunRecord(path, model.names) as record:
        for i in range(6):
            losses = model.losses(batch(i))
            if i == 2:
                losses["task1"] = None
            record.write(balancer.backward(losses))
    again = gaba.History.read(path)
    assert again.about == balancer.history.about == {"metric": "euclidean", **again.about}
    np.testing.assert_allclose(again.times, balancer.history.times, atol=1e-3)
    assert (np.diff(again.times) >= 0).all()
    found = balancer.history.cosines
    np.testing.assert_allclose(again.cosines, found, rtol=1e-12)
    assert np.isnan(found[1::2]).all()  # not measured
    assert np.isnan(found[2, 1]).all()
    assert np.isnan(found[2, :, 1]).all()
    np.testing.assert_allclose(found[0].diagonal(), 1)
    assert (np.abs(found[4]) <= 1 + 1e-12).all()
    with gaba.RunRecord(path, model.names, resume_at=3) as record:
        record.write(balancer.backward(model.losses(batch(9))))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum("about" in line for line in lines) == 1  # said once, and kept when resumed
    assert gaba.History.read(path).about == balancer.history.about


def test_a_file_without_times_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    model = TwoStage([1.0, 50.0])
    step = gaba.Balancer(model.names, model.trunk).backward(model.losses(batch()))
    header = {"gaba": "0", "tasks": model.names, "meta": {}}
    path.write_text(f"{json.dumps(header)}\n{json.dumps(step.asdict())}\n")
    again = gaba.History.read(path)
    assert np.isnan(again.times).all()
    assert again.about == {}
