"""How a step is executed: checkpointing, clipping, several optimizers, frozen parts, compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gaba
from _engines import balanced
from _models import TwoStage, batch, grads
from gaba.measurement import ExactNorms, Measurement, OutputNorms

DOUBLE = torch.float64


def plain(model: TwoStage, x: Tensor, step: gaba.Step) -> dict[str, Tensor]:
    """What one backward pass of the sum with the multipliers of ``step`` leaves."""
    model.zero_grad()
    total = torch.zeros((), dtype=x.dtype)
    for m, loss in zip(step.multipliers, model.losses(x).values(), strict=True):
        assert loss is not None
        total = total + float(m) * loss
    total.backward()
    return grads(model)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=False)


MEASUREMENTS = (ExactNorms(), ExactNorms(layer="last"), OutputNorms())


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=str)
def test_checkpointing_changes_nothing(measurement: Measurement) -> None:
    found = []
    for wrap in (lambda trunk: trunk, Checkpointed):
        model = TwoStage([1.0, 300.0], dtype=DOUBLE)
        setattr(model, "trunk", wrap(model.trunk))  # noqa: B010  # a module of another class
        balancer = balanced(model.names, model.trunk, measurement)
        for number in range(2):
            model.zero_grad()
            balancer.backward(model.losses(batch(number, dtype=DOUBLE)))
        found.append((balancer.history.multipliers, list(grads(model).values())))
    (one, own), (other, theirs) = found
    assert one == pytest.approx(other, rel=1e-12)
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_reentrant_checkpoint_is_named_with_its_remedy() -> None:
    trunk, heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 1) for _ in "ab")
    z: Any = checkpoint(trunk, torch.randn(8, 4, requires_grad=True), use_reentrant=True)
    losses = {name: head(z).square().mean() for name, head in zip("ab", heads, strict=True)}
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        gaba.Balancer(["a", "b"], trunk).backward(losses)
    assert all(p.grad is None for p in (*trunk.parameters(), *heads.parameters()))


def test_clipping_sees_the_combined_gradient() -> None:
    model, x = TwoStage([1.0, 300.0], dtype=DOUBLE), batch(dtype=DOUBLE)
    step = balanced(model.names, model.trunk).backward(model.losses(x))
    length = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    clipped = grads(model)
    expected = plain(model, x, step)
    truth = torch.cat([g.flatten() for g in expected.values()]).norm()
    torch.testing.assert_close(length, truth)
    assert_same(clipped, {n: g * (0.1 / (truth + 1e-6)) for n, g in expected.items()})


def test_several_optimizers() -> None:
    model = TwoStage([1.0, 300.0], dtype=DOUBLE)
    twin = TwoStage([1.0, 300.0], dtype=DOUBLE)
    balancer = balanced(model.names, model.trunk)
    several = [
        torch.optim.AdamW(model.trunk.parameters(), lr=1e-2),
        torch.optim.SGD(model.heads.parameters(), lr=1e-3),
    ]
    twins = [
        torch.optim.AdamW(twin.trunk.parameters(), lr=1e-2),
        torch.optim.SGD(twin.heads.parameters(), lr=1e-3),
    ]
    for number in range(3):
        x = batch(number, dtype=DOUBLE)
        model.zero_grad()
        step = balancer.backward(model.losses(x))
        plain(twin, x, step)
        for optimizer in (*several, *twins):
            optimizer.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_frozen_parameters_are_not_measured_from_the_step_on_in_which_they_are_frozen() -> None:
    model, x = TwoStage([1.0, 300.0], dtype=DOUBLE), batch(dtype=DOUBLE)
    balancer = balanced(model.names, model.trunk)
    whole = balancer.backward(model.losses(x)).norms
    model.trunk[0].requires_grad_(False)
    model.zero_grad()
    step = balancer.backward(model.losses(x))
    assert (step.norms < whole).all()
    last = list(model.trunk[2].parameters())
    only = balanced(model.names, last).backward(model.losses(x))
    torch.testing.assert_close(step.norms, only.norms)
    assert all(p.grad is None for p in model.trunk[0].parameters())


def test_tasks_that_share_a_head() -> None:
    """A head of two tasks is no part of θ as given, and gets the gradient of the weighted sum."""
    model, x = TwoStage([1.0, 300.0, 0.1], dtype=DOUBLE), batch(dtype=DOUBLE)
    model.heads[2] = model.heads[1]
    step = balanced(model.names, model.trunk).backward(model.losses(x))
    found = grads(model)
    assert_same(found, plain(model, x, step))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("what", ["trunk", "model"])
def test_compiled(what: str) -> None:
    model, x = TwoStage([1.0, 300.0]), batch()
    plainly = balanced(model.names, model.trunk).backward(model.losses(x))
    if what == "trunk":
        model.trunk = torch.compile(model.trunk)  # pyright: ignore[reportAttributeAccessIssue]
        losses = model.losses
    else:
        losses: Any = torch.compile(model.losses)
    balancer = balanced(model.names, model.trunk)
    for _ in range(2):
        model.zero_grad()
        step = balancer.backward(losses(x))
        torch.testing.assert_close(step.norms, plainly.norms, rtol=1e-4, atol=0)
        found = grads(model)
        expected = plain(model, x, step)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


COMPILED = {
    "every": {"every": 2},
    "outputs": {"measure": OutputNorms()},
    "exact": {},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize(
    ("name", "by_caller"), [*((name, False) for name in COMPILED), ("every", True)]
)
def test_compiled_parts_of_any_size_in_steps_measured_and_not(name: str, by_caller: bool) -> None:
    """A graph first seen in a step that is not measured must not reuse its buffers."""
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model = TwoStage([1.0, 300.0])
        run: list[Any] = [model.trunk, *model.heads]
        if compiled:
            run = [torch.compile(part, backend="aot_eager", dynamic=False) for part in run]
        balancer = balanced(model.names, run[0], **COMPILED[name])
        seen = []
        for number, n in enumerate((16, 8, 8, 16, 4, 4)):
            z = run[0](batch(number, n))
            losses = {
                t: (h(z) - k).square().mean()
                for k, (t, h) in enumerate(zip(model.names, run[1:], strict=True))
            }
            if number in (1, 4):
                del losses["task0"]
            model.zero_grad()
            if by_caller:
                balancer(losses).backward()
            else:
                balancer.backward(losses)
            seen.append(grads(model))
        found.append(seen)
    torch._dynamo.reset()
    for plainly, again in zip(*found, strict=True):
        assert plainly.keys() == again.keys()
        for key, value in plainly.items():
            torch.testing.assert_close(again[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_whole_step_compiled_breaks_once_at_the_balancer() -> None:
    """What stands around the Balancer is compiled; the Balancer itself runs as it is."""
    found = []
    for compiled in (False, True):
        model = TwoStage([1.0, 300.0])
        balancer = balanced(model.names, model.trunk)
        optimizer = torch.optim.SGD(model.parameters(), 1e-5)

        def step(x: Tensor, model: TwoStage = model, balancer: Any = balancer) -> None:
            model.zero_grad()
            balancer.backward(model.losses(x))

        one = torch.compile(step) if compiled else step
        for number in range(3):
            one(batch(number))
            optimizer.step()
        found.append((balancer.history.multipliers, [p.detach() for p in model.parameters()]))
    torch._dynamo.reset()
    (weights, parameters), (same, again) = found
    assert weights == pytest.approx(same, rel=1e-4)
    for one, other in zip(parameters, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    model = TwoStage([1.0, 300.0])
    balancer = balanced(model.names, model.trunk)
    explained = torch._dynamo.explain(lambda x: balancer.backward(model.losses(x)))(batch())
    assert explained.graph_break_count <= 1
    assert len(balancer.history) > 0
