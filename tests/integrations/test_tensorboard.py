"""The curves that TensorBoard reads back are the columns of the history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

import gaba
from gaba.integrations.tensorboard import TensorBoardSink


def run(sink: TensorBoardSink, steps: int, balancer: gaba.Balancer, w: torch.nn.Parameter) -> None:
    for i in range(steps):
        losses = {"loud": 100 * (w * (i + 1)).square().sum(), "quiet": w.sum()}
        sink.write(balancer.backward({"quiet": losses["quiet"]} if i == 2 else losses))


def make(method: str = "gaba") -> tuple[gaba.Balancer, torch.nn.Parameter]:
    w = torch.nn.Parameter(torch.ones(3))
    return gaba.Balancer(["loud", "quiet"], [w], method), w


def curve(folder: Path, name: str) -> tuple[list[int], list[float]]:
    events = EventAccumulator(str(folder)).Reload().Scalars(name)
    return [event.step for event in events], [event.value for event in events]


def test_the_curves_are_the_history(tmp_path: Path) -> None:
    balancer, w = make()
    with TensorBoardSink(tmp_path) as sink:
        run(sink, 5, balancer, w)
    history = balancer.history
    for name in ("losses", "norms", "multipliers", "weights", "contributions", "saturated"):
        for k, task in enumerate(balancer.tasks):
            column = getattr(history, name)[:, k].astype(float)
            seen = np.isfinite(column)
            steps, values = curve(tmp_path, f"gaba/{name}/{task}")
            assert steps == history.steps[seen].tolist()
            np.testing.assert_allclose(values, column[seen], rtol=1e-6)
    np.testing.assert_allclose(curve(tmp_path, "gaba/imbalance")[1], history.imbalance, rtol=1e-6)
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("gaba/imbalance")
    np.testing.assert_allclose([event.wall_time for event in events], history.times)


def test_shares_are_there_where_the_gramian_is(tmp_path: Path) -> None:
    balancer, w = make("equal-share")
    with TensorBoardSink(tmp_path) as sink:
        run(sink, 2, balancer, w)
    steps, values = curve(tmp_path, "gaba/shares/loud")
    assert steps == [0, 1]
    np.testing.assert_allclose(values, balancer.history.shares[:, 0], rtol=1e-6)


def test_a_run_that_was_stopped_goes_on_in_its_folder(tmp_path: Path) -> None:
    balancer, w = make()
    with TensorBoardSink(tmp_path, prefix="run") as sink:
        run(sink, 2, balancer, w)
        saved = balancer.state_dict()
        run(sink, 2, balancer, w)  # lost: the run stops before it is saved again
    again, w = make()
    again.load_state_dict(saved)
    with TensorBoardSink(tmp_path, prefix="run", resume_at=2) as sink:
        run(sink, 4, again, w)
    steps, values = curve(tmp_path, "run/weights/loud")
    assert steps == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(values[2:], again.history.weights[:, 0], rtol=1e-6)


def test_a_writer_stays_with_its_owner(tmp_path: Path) -> None:
    balancer, w = make()
    with SummaryWriter(str(tmp_path)) as writer:
        with TensorBoardSink(writer) as sink:
            run(sink, 1, balancer, w)
        writer.add_scalar("mine", 3.0, 0)
    assert curve(tmp_path, "mine") == ([0], [3.0])
    assert curve(tmp_path, "gaba/weights/loud")[0] == [0]
    with SummaryWriter(str(tmp_path)) as writer, pytest.raises(ValueError, match="purge_step=3"):
        TensorBoardSink(writer, resume_at=3)
