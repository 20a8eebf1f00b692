"""Real loops with Fabric against loops written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision, Precision
from torch import Tensor, nn

import gaba
from _by_hand import SCALES as THREE
from _by_hand import assert_probed, balancer_of, loop
from _models import TwoStage, batch
from gaba.integrations.lightning import FabricBalancer

SCALES = (100.0, 1.0)


class Model(nn.Module):
    def __init__(self, scales: Sequence[float] = SCALES) -> None:
        super().__init__()
        self.net = TwoStage(scales)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        return self.net.losses(x)


class Scaling(Precision):
    """A precision with a backward pass of its own: of the loss times 8, undone at the step."""

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        super().backward(8 * tensor, model, *args, **kwargs)

    def optimizer_step(self, optimizer: Any, **kwargs: Any) -> Any:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad /= 8
        return super().optimizer_step(optimizer, **kwargs)


def parts() -> tuple[Model, gaba.Balancer, torch.optim.Optimizer]:
    model = Model()
    balancer = gaba.Balancer(model.net.names, shared=model.net.trunk)
    return model, balancer, torch.optim.Adam(model.parameters(), lr=1e-2)


def by_hand(steps: int) -> tuple[Model, gaba.Balancer]:
    model, balancer, optimizer = parts()
    for i in range(steps):
        balancer(model(batch(i))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, balancer


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("plugin", [None, Scaling()], ids=["plain", "own backward pass"])
def test_a_loop_is_the_loop_written_by_hand(plugin: Precision | None) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    model, balancer, optimizer = parts()
    balanced = FabricBalancer(fabric, balancer)
    wrapped, stepper = fabric.setup(model, optimizer)
    for i in range(6):
        balanced.backward(wrapped(batch(i)))
        stepper.step()
        stepper.zero_grad()
    looped, expected = by_hand(6)
    assert_same(model, looped)
    assert balancer.multipliers == pytest.approx(expected.multipliers, rel=1e-6)


@pytest.mark.parametrize("plugin", [None, Scaling()], ids=["plain", "own backward pass"])
def test_the_shares_are_measured_at_the_end_of_the_backward_pass(plugin: Precision | None) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    model, looped = Model(THREE), Model(THREE)
    balanced = FabricBalancer(fabric, balancer_of(model.net))
    wrapped, stepper = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    for i in range(6):
        balanced.backward(wrapped(batch(i)))
        if plugin is None:
            fabric.clip_gradients(wrapped, stepper, max_norm=0.1)
        stepper.step()
        stepper.zero_grad()
    expected, optimizer = balancer_of(looped.net), torch.optim.Adam(looped.parameters(), lr=1e-2)
    clip = 0.1 if plugin is None else None
    truth = loop(looped.net, expected, optimizer, map(batch, range(6)), clip=clip)
    assert_same(model, looped)
    assert_probed(balanced.balancer, expected, truth)
    found = balanced.log(step=6)
    for k, task in enumerate(expected.tasks):
        assert found[f"gaba/shares/{task}"] == balanced.balancer.history.shares[-1, k]


def test_without_it_fabric_refuses_the_passes_that_measure() -> None:
    fabric = Fabric(accelerator="cpu", devices=1, plugins=Scaling())
    model, balancer, optimizer = parts()
    wrapped, _ = fabric.setup(model, optimizer)
    with pytest.raises(RuntimeError, match=r"requires you to call `fabric\.backward"):
        balancer(wrapped(batch(0)))
    balanced = FabricBalancer(fabric, balancer)
    losses = wrapped(batch(0))
    with pytest.raises(ValueError, match="unknown task"):
        balanced.backward({"else": losses["task0"]})
    with pytest.raises(RuntimeError, match=r"requires you to call `fabric\.backward"):
        losses["task0"].backward()  # allowed for a moment, not forever


def test_in_float16_small_losses_are_measured_on_the_scale_of_fabric() -> None:
    norms = []
    for plugin in (
        MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**13)),
        None,
    ):
        fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
        model, balancer, optimizer = parts()
        balanced = FabricBalancer(fabric, balancer)
        wrapped, stepper = fabric.setup(model, optimizer)
        first, second = wrapped(batch(0)).values()
        balanced.backward({"task0": 0.01 * first, "task1": 1e-7 * second})
        stepper.step()
        norms.append(torch.tensor(balancer.history.norms[0]))
    torch.testing.assert_close(norms[0], norms[1], rtol=0.02, atol=0)
    assert 0 < norms[1][1] < 2e-7  # of which float16 knows no element


def test_what_is_logged_and_saved(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    model, balancer, optimizer = parts()
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        balanced = FabricBalancer(fabric, balancer, sinks=[record])
        wrapped, stepper = fabric.setup(model, optimizer)
        for i in range(4):
            balanced.backward(wrapped(batch(i)))
            stepper.step()
            stepper.zero_grad()
        found = balanced.log(step=4)
    assert balanced.log() == {}
    for name in ("multipliers", "weights"):
        assert found[f"gaba/{name}/task0"] == getattr(balancer.history, name)[-1, 0]
    assert gaba.History.read(tmp_path / "run.jsonl").steps.tolist() == [0, 1, 2, 3]

    state = {"model": wrapped, "optimizer": stepper, "balancer": balancer}
    fabric.save(tmp_path / "state.ckpt", state)
    again, other, third = parts()
    fabric = Fabric(accelerator="cpu", devices=1)
    balanced = FabricBalancer(fabric, other)
    wrapped, stepper = fabric.setup(again, third)
    fabric.load(
        tmp_path / "state.ckpt", {"model": wrapped, "optimizer": stepper, "balancer": other}
    )
    for i in range(4, 6):
        balanced.backward(wrapped(batch(i)))
        stepper.step()
        stepper.zero_grad()
    looped, expected = by_hand(6)
    assert_same(again, looped)
    assert other.multipliers == expected.multipliers
