"""Real loops with Accelerate against loops written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn

import gaba
from _by_hand import SCALES as THREE
from _by_hand import assert_probed, balancer_of, loop
from _models import TwoStage, batch
from gaba.integrations.accelerate import AcceleratedBalancer

SCALES = (100.0, 1.0)


@pytest.fixture(autouse=True)
def _its_own_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


class Model(nn.Module):
    def __init__(self, scales: Sequence[float] = SCALES) -> None:
        super().__init__()
        self.net = TwoStage(scales)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        return self.net.losses(x)


def parts() -> tuple[Model, gaba.Balancer, torch.optim.Optimizer]:
    model = Model()
    balancer = gaba.Balancer(model.net.names, shared=model.net.trunk)
    return model, balancer, torch.optim.Adam(model.parameters(), lr=1e-2)


def by_hand(steps: int, accumulate: int) -> tuple[Model, gaba.Balancer]:
    model, balancer, optimizer = parts()
    balancer.accumulate = accumulate
    for i in range(steps):
        (balancer(model(batch(i))) / accumulate).backward()
        if (i + 1) % accumulate == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model, balancer


def train(
    accelerator: Accelerator,
    balanced: AcceleratedBalancer,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range,
) -> None:
    for i in steps:
        with accelerator.accumulate(model):
            balanced.backward(model(batch(i)))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loop_is_the_loop_written_by_hand(accumulate: int) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model, balancer, optimizer = parts()
    balanced = AcceleratedBalancer(accelerator, balancer)
    wrapped, stepper = accelerator.prepare(model, optimizer)
    train(accelerator, balanced, wrapped, stepper, range(6))
    looped, expected = by_hand(6, accumulate)
    assert_same(model, looped)
    assert balancer.multipliers == pytest.approx(expected.multipliers, rel=1e-6)


def test_a_window_that_the_end_of_the_data_cuts_short_is_the_last_of_its_epoch() -> None:
    """Of seven batches, four and three make a step; the next epoch begins with a window of four."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = Model()
    balancer = gaba.Balancer(model.net.names, model.net.trunk, method="inverse")
    balanced = AcceleratedBalancer(accelerator, balancer)
    batches: Any = [batch(i) for i in range(7)]
    data = torch.utils.data.DataLoader(batches, batch_size=None)
    wrapped, stepper, loader = accelerator.prepare(
        model, torch.optim.Adam(model.parameters(), lr=1e-2), data
    )
    for _ in range(2):
        for x in loader:
            with accelerator.accumulate(wrapped):
                balanced.backward(wrapped(x))
                stepper.step()
                stepper.zero_grad()
    assert balancer.accumulate == 4
    assert balancer.history.measured.nonzero()[0].tolist() == [0, 4, 7, 11]


def test_another_accumulate_is_warned_of() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = Model()
    balancer = gaba.Balancer(model.net.names, model.net.trunk, accumulate=2)
    with pytest.warns(UserWarning, match="of the accelerator, 4, found 2"):
        AcceleratedBalancer(accelerator, balancer)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_shares_are_measured_at_the_end_of_the_backward_pass(accumulate: int) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model, looped = Model(THREE), Model(THREE)
    balanced = AcceleratedBalancer(accelerator, balancer_of(model.net, accumulate))
    wrapped, stepper = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    train(accelerator, balanced, wrapped, stepper, range(6))
    expected = balancer_of(looped.net, accumulate)
    optimizer = torch.optim.Adam(looped.parameters(), lr=1e-2)
    batches = map(batch, range(6))
    truth = loop(looped.net, expected, optimizer, batches, accumulate=accumulate, clip=1.0)
    assert_same(model, looped)
    assert_probed(balanced.balancer, expected, truth)
    found = balanced.log(step=6)
    for k, task in enumerate(expected.tasks):
        assert found[f"gaba/shares/{task}"] == balanced.balancer.history.shares[-1, k]


def test_the_saved_state_has_the_balancer(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, balancer, optimizer = parts()
    balanced = AcceleratedBalancer(accelerator, balancer)
    wrapped, stepper = accelerator.prepare(model, optimizer)
    train(accelerator, balanced, wrapped, stepper, range(4))
    accelerator.save_state(str(tmp_path / "state"))
    train(accelerator, balanced, wrapped, stepper, range(100, 104))  # astray
    accelerator.load_state(str(tmp_path / "state"))
    train(accelerator, balanced, wrapped, stepper, range(4, 8))
    looped, expected = by_hand(8, 2)
    assert_same(model, looped)
    assert balancer.multipliers == expected.multipliers


def test_trackers_and_sinks_are_told(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(tmp_path / "logs"))
    accelerator.init_trackers("run")
    model, balancer, optimizer = parts()
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        balanced = AcceleratedBalancer(accelerator, balancer, prefix="pull", sinks=[record])
        wrapped, stepper = accelerator.prepare(model, optimizer)
        for last in (3, 5):
            train(accelerator, balanced, wrapped, stepper, range(len(balancer.history), last))
            found = balanced.log(step=last)
    accelerator.end_training()
    assert found["pull/imbalance"] == balancer.history.imbalance[-1]
    assert found["pull/losses/task0"] == pytest.approx(balancer.history.losses[3:, 0].mean())
    read = gaba.History.read(tmp_path / "run.jsonl")
    assert read.steps.tolist() == list(range(5))
    assert set(read.combined) == {"caller"}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    for name in ("multipliers", "weights"):
        curve = [(e.step, e.value) for e in events.Scalars(f"pull/{name}/task0")]
        column = getattr(balancer.history, name)[[2, 4], 0]
        assert curve == [(3, pytest.approx(column[0])), (5, pytest.approx(column[1]))]
