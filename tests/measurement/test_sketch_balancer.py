"""The sketch inside the Balancer: what it leaves behind, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import (
    Tensor,
    _foreach_norm,  # pyright: ignore[reportPrivateImportUsage]
    nn,
)
from torch._subclasses.fake_tensor import FakeTensorMode

import gaba
from _engines import balanced
from _models import TwoStage, batch, grads
from _trunks import TRUNKS, features_of, inputs, task_losses
from gaba.measurement import ExactNorms, SketchNorms
from gaba.measurement.directions import direction

SCALES = (1.0, 500.0, 0.02)
NAMES = ["a", "b", "c"]


class Model(nn.Module):
    """One of the trunks with its heads; counts the calls of the trunk."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.heads = TRUNKS[name]().to(dtype), nn.Linear(8, len(SCALES)).to(dtype)
        self.calls = 0
        self.trunk.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, args: object) -> None:
        self.calls += 1

    def losses(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        z = features_of(self.trunk(inputs(seed=seed, dtype=dtype)))
        return dict(zip(NAMES, task_losses(self.heads, z, SCALES), strict=True))


def everything(model: nn.Module) -> dict[str, Any]:
    """Values, memory and versions of all that the rerun could have touched."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {n: t.detach().clone() for n, t in tensors.items()},
        "places": {n: (id(t), t.data_ptr(), t._version, t.stride()) for n, t in tensors.items()},
        "modes": [m.training for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def assert_unchanged(before: dict[str, Any], model: nn.Module) -> None:
    after = everything(model)
    assert before["places"] == after["places"]
    assert before["modes"] == after["modes"]
    assert torch.equal(before["random"], after["random"])
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name


def tensors_of(balancer: gaba.Balancer) -> dict[str, Tensor]:
    """What the Balancer remembers, copied."""
    return {n: v for n, v in balancer.state_dict().items() if isinstance(v, Tensor)}


TRUNK_NAMES = ["lstm", "gru", "convolutions", "embedding", "transformer", "checkpointed"]


@pytest.mark.parametrize("name", [*TRUNK_NAMES, "spectral-norm"])
def test_gradients_are_those_of_the_weighted_sum_and_nothing_else_changes(name: str) -> None:
    model = Model(name)
    balancer = balanced(NAMES, model.trunk, SketchNorms())
    losses = model.losses()
    before, calls = everything(model), model.calls
    step = balancer.backward(losses)
    if name != "checkpointed":  # whose backward pass, as ever, runs BatchNorm again
        assert_unchanged(before, model)
    assert model.calls - calls == (2 if name == "spectral-norm" else 1)
    assert step.combined == "by-hand"
    found = grads(model)
    model.zero_grad()
    twin = Model(name)  # the same masks: the same seed before the same call
    weighted = step.multipliers.tolist()
    torch.stack(
        [w * v for w, v in zip(weighted, twin.losses().values(), strict=True)]
    ).sum().backward()
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)
    expected = grads(twin)
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-8, atol=1e-12)


class Breaks(nn.Module):
    """Raises at its n-th call, after having written into its buffer."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.count, self.inner = at, 0, TRUNKS["convolutions"]()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen += 1
        z = self.inner(x)
        if self.count == self.at:
            raise RuntimeError("out of order")
        return z


@pytest.mark.parametrize("at", [3, 4])
def test_an_exception_leaves_everything_as_it_was(at: int) -> None:
    torch.manual_seed(0)
    trunk = Breaks(at).double()
    balancer = balanced(["a", "b"], trunk, SketchNorms())
    z, y = trunk(inputs()), trunk(inputs(seed=1))
    losses = {"a": z.mean(), "b": (z * y).square().mean()}
    before, state = everything(trunk), tensors_of(balancer)
    with pytest.raises(RuntimeError, match="out of order"):
        balancer.backward(losses)
    assert_unchanged(before, trunk)
    assert all(p.grad is None for p in trunk.parameters())
    torch.testing.assert_close(tensors_of(balancer), state, rtol=0, atol=0)
    trunk.at = 0
    assert balancer.backward(losses).norms.isfinite().all()  # the graph is whole, the hooks work


class Layout(nn.Module):
    """Notes how its weights lie in memory, those that share one block among them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        block = torch.randn(30)
        self.one, self.two = nn.Parameter(block[:6].view(2, 3)), nn.Parameter(block[10:18])
        self.seen: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        gap = self.two.data_ptr() - self.one.data_ptr()
        same = self.one.untyped_storage()._cdata == self.two.untyped_storage()._cdata
        self.seen.append((self.conv.weight.stride(), gap, same, self.one.storage_offset()))
        return self.conv(x).flatten(1) @ self.one.T.repeat(4, 1) * self.two[:2]


def test_weights_lie_in_memory_as_they_did() -> None:
    torch.manual_seed(0)
    trunk = Layout()
    balancer = balanced(["a", "b"], trunk, SketchNorms(decay=0.0))
    z = trunk(torch.randn(5, 4, 3, 3))
    losses = {"a": z.square().mean(), "b": z.sin().sum()}
    theta = list(trunk.parameters())
    v = direction(theta, 0, torch.tensor(0))
    slopes = [
        sum((g * d).sum() for g, d in zip(grad, v, strict=True))
        for grad in (torch.autograd.grad(a, theta, retain_graph=True) for a in losses.values())
    ]
    step = balancer.backward(losses)
    assert len(trunk.seen) == 2
    assert trunk.seen[0] == trunk.seen[1]
    for found, expected in zip(step.norms.tolist(), slopes, strict=True):
        assert found == pytest.approx(abs(float(expected)), rel=1e-2)


def test_inside_autocast_no_stale_copies_of_parameters() -> None:
    """Autocast keeps copies of parameters: the rerun must neither use nor leave any."""
    model = Model("perceptron", torch.float32)
    balancer = balanced(NAMES, model.trunk, SketchNorms())
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(dtype=torch.float32)
        step = balancer.backward(losses)
        again = model.losses(dtype=torch.float32)
    assert (step.norms > 0).all()
    for name, loss in again.items():
        assert torch.equal(loss, losses[name])


def test_every_n_steps_and_inputs_let_go() -> None:
    model = Model("perceptron")
    balancer = balanced(NAMES, model.trunk, SketchNorms(), every=3)
    steps = []
    for seed in range(7):
        calls = model.calls
        steps.append(balancer.backward(model.losses(seed)))
        assert model.calls - calls == (2 if seed % 3 == 0 else 1)
        assert balancer._shared.hook._current is None  # type: ignore[attr-defined]
    assert [step.measured for step in steps] == [seed % 3 == 0 for seed in range(7)]


def test_resume_continues_bit_for_bit() -> None:
    def run(balancer: gaba.Balancer, model: Model, seeds: range) -> list[Tensor]:
        found = []
        for seed in seeds:
            losses: dict[str, Any] = model.losses(seed)
            if seed % 3 == 1:
                losses["b"] = None
            found.append(balancer.backward(losses).norms)
        return found

    engine = SketchNorms(probes=2, decay=0.9)
    model = Model("perceptron")
    whole = run(balanced(NAMES, model.trunk, engine), model, range(8))
    first = balanced(NAMES, model.trunk, engine)
    run(first, model, range(4))
    second = balanced(NAMES, model.trunk, engine)
    second.load_state_dict(first.state_dict())
    for found, expected in zip(run(second, model, range(4, 8)), whole[4:], strict=True):
        assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))


def test_a_step_that_is_not_finite_leaves_no_trace() -> None:
    model = Model("perceptron")
    balancer = balanced(NAMES, model.trunk, SketchNorms())
    balancer.backward(model.losses())
    state = tensors_of(balancer)
    bad = model.losses()
    bad["b"] = bad["b"] * torch.nan
    assert not balancer.backward(bad).finite
    torch.testing.assert_close(tensors_of(balancer), state, rtol=0, atol=0)


def test_a_plain_backward_where_someone_listens_and_for_the_caller() -> None:
    model = Model("convolutions")
    balancer = balanced(NAMES, model.trunk, SketchNorms())
    handle = model.heads.weight.register_hook(lambda g: g)
    step = balancer.backward(model.losses())
    assert step.combined == "backward"
    handle.remove()
    assert all(p.grad is not None for p in model.parameters())
    scalar = balancer(model.losses())
    scalar.backward()
    last = balancer.backward(model.losses())
    assert last.measured
    assert last.combined == "by-hand"


def test_a_leaf_on_both_sides_of_the_features() -> None:
    """An input with a gradient that reaches a loss through the trunk and around it."""
    model, x = TwoStage([1.0, 30.0], dtype=torch.float64), batch(dtype=torch.float64)
    x.requires_grad_()
    balancer = balanced(["a", "b"], model.trunk, SketchNorms())

    def losses() -> list[Tensor]:
        z = model.trunk(x)
        return [
            model.heads[0](z).square().mean() + x.square().sum(),
            model.heads[1](z).exp().mean(),
        ]

    step = balancer.backward(dict(zip("ab", losses(), strict=True)))
    factors = step.multipliers
    expected = torch.autograd.grad((factors * torch.stack(losses())).sum(), [x])
    torch.testing.assert_close(x.grad, expected[0])


@pytest.mark.parametrize("rule", [gaba.rules.InverseNorm(), gaba.rules.EqualShare()])
def test_the_hot_path_never_waits_for_the_device(rule: gaba.rules.Rule) -> None:
    """On a device without data every look at a value raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        trunk, heads = nn.Linear(3, 4, device="meta"), nn.Linear(4, 2, device="meta")
        engine = SketchNorms(probes=2)
        balancer = balanced(["a", "b"], trunk, engine, rule=rule)
        for present in ("ab", "ab", "a"):
            z = heads(trunk(torch.ones(5, 3, device="meta")))
            losses = {"a": z[:, 0].mean(), "b": z[:, 1].square().mean()}
            step = balancer.backward({name: losses[name] for name in present})
        assert step.norms.device.type == "meta"
        assert trunk.weight.grad is not None


def test_training_with_the_sketch_keeps_norm_ratios_within_the_stated_error() -> None:
    """400 steps of float32 training: the sketch against exact squares, smoothed the same way."""
    decay, scales = 0.98, [1.0, 400.0, 0.01]
    model = TwoStage(scales)
    engine = SketchNorms(decay=decay, probes=2)
    balancer = balanced(model.names, model.trunk, engine)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    mean, mass = torch.zeros(3).double(), 0.0
    errors: list[Tensor] = []
    for seed in range(400):
        x = batch(seed)
        theta = list(model.trunk.parameters())
        probe = [
            torch.autograd.grad(v, theta, retain_graph=True)
            for v in model.losses(x).values()
            if v is not None
        ]
        squares = torch.stack(
            [torch.stack(_foreach_norm(row)).double().square().sum() for row in probe]
        )
        mean, mass = decay * mean + (1 - decay) * squares, decay * mass + 1 - decay
        step = balancer.backward(model.losses(x))
        optimizer.step()
        optimizer.zero_grad()
        logs = (step.norms / (mean / mass).sqrt()).log()
        errors.append(logs - logs.mean())
        assert step.imbalance < 1 + 1e-9
    standard = (2 / 2 * (1 - decay) / (1 + decay)) ** 0.5 / 2
    late = torch.stack(errors)[200:].square().mean().sqrt()
    assert 0.1 * standard < late < 2 * standard


def test_equal_share_runs_on_the_estimated_gramian() -> None:
    model = Model("perceptron")
    engine = SketchNorms(probes=40, decay=0.95)
    balancer = balanced(
        NAMES,
        model.trunk,
        engine,
        rule=gaba.rules.EqualShare(),
        believe=gaba.stabilisers.Identity(),
    )
    step = [balancer.backward(model.losses()) for _ in range(60)][-1]
    exact = balanced(
        NAMES,
        model.trunk,
        ExactNorms(),
        rule=gaba.rules.EqualShare(),
        believe=gaba.stabilisers.Identity(),
    ).backward(model.losses())
    assert step.gramian is not None
    assert exact.gramian is not None
    shares = gaba.shares(step.multipliers, step.gramian)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 3), rtol=1e-6, atol=0)
    shares = gaba.shares(step.multipliers, exact.gramian)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 3), rtol=0.25, atol=0)


def test_shared_must_be_a_module_and_the_name_is_known() -> None:
    model = Model("perceptron")
    with pytest.raises(ValueError, match="shared must be a module"):
        balanced(NAMES, list(model.trunk.parameters()), SketchNorms())
    assert balanced(NAMES, model.trunk, "sketch").method.measure == SketchNorms()
