"""J_z v from calls made again: against v · ∇L from plain backward passes, and without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from _trunks import TRUNKS, features_of, inputs, task_losses
from gaba.autograd.graph import LossGraph
from gaba.autograd.rerun import Rerun
from gaba.autograd.shared import as_shared
from gaba.measurement.derivative import by_difference
from gaba.measurement.directions import direction

SCALES = (1.0, 500.0, 0.02)
STEP = {kind: torch.finfo(kind).eps ** 0.5 / 3 for kind in (torch.float64, torch.float32)}
STEP[torch.bfloat16] = torch.finfo(torch.bfloat16).eps ** 0.5 / 3
"""The length of the move, in parts of that of θ: between rounding and the bend of the network."""


def setting(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    trunk, heads = TRUNKS[name]().to(dtype), nn.Linear(8, len(SCALES)).to(dtype)
    return trunk, heads, kept(trunk)


def kept(trunk: nn.Module) -> Any:
    shared = as_shared(trunk)
    shared.keep_calls(True)
    return shared


def rerun_of(graph: LossGraph) -> Rerun:
    found = Rerun.at(graph, graph.edges)
    assert found is not None
    return found


def along(graph: LossGraph) -> list[Tensor]:
    """A direction in θ."""
    return direction(graph.theta, 0, torch.tensor(0))


def length(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors]).norm()


def slopes(graph: LossGraph, v: list[Tensor]) -> Tensor:
    """⟨∂L_k/∂z, J_z v⟩ of each task, by calls made again."""
    rerun = rerun_of(graph)
    theta = length(list(graph.theta))
    step = rerun.step(STEP) * torch.where(theta > 0, theta, 1.0) / length(v)
    change = by_difference(rerun, v, step.detach())
    found = []
    for loss in graph.losses:
        at = torch.autograd.grad(loss, rerun.edges, retain_graph=True, allow_unused=True)
        pairs = zip(at, change, strict=True)
        found.append(sum((g.to(dz) * dz).sum() for g, dz in pairs if g is not None))
    return torch.stack([torch.as_tensor(slope) for slope in found])


def oracle(graph: LossGraph, v: list[Tensor]) -> Tensor:
    """v · ∇L_k, with the gradients from K backward passes."""
    found = []
    for loss in graph.losses:
        grads = torch.autograd.grad(loss, graph.theta, retain_graph=True, allow_unused=True)
        parts = [(g.to_dense() * d).sum() for g, d in zip(grads, v, strict=True) if g is not None]
        found.append(torch.stack(parts).sum())
    return torch.stack(found).double()


def assert_as_the_gradients(graph: LossGraph, rtol: float = 1e-5) -> None:
    v = along(graph)
    torch.testing.assert_close(slopes(graph, v), oracle(graph, v), rtol=rtol, atol=0)


@pytest.mark.filterwarnings("ignore:.*isinstance_check:DeprecationWarning")
@pytest.mark.parametrize("name", TRUNKS)
def test_slopes_along_the_direction_are_those_of_the_gradients(name: str) -> None:
    """In training, with dropout: other masks than in the losses would not pass."""
    trunk, heads, shared = setting(name)
    for seed in range(3):
        z = features_of(trunk(inputs(seed=seed)))
        graph = LossGraph(task_losses(heads, z, SCALES), shared)
        # spectral normalisation moves its own state on with every call
        assert_as_the_gradients(graph, 1e-3 if name == "spectral-norm" else 1e-5)


@pytest.mark.parametrize("name", ["convolutions", "transformer", "lstm"])
@pytest.mark.parametrize(("low", "most"), [(False, 0.02), (True, 0.5)])
def test_the_error_in_float32_and_under_bfloat16_autocast(
    name: str, low: bool, most: float
) -> None:
    """In parts of ‖∇L‖, the typical size of a slope along random signs."""
    trunk, heads, shared = setting(name, torch.float32)
    errors = []
    for seed in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            z = trunk(inputs(n=32, seed=seed, dtype=torch.float32))
        graph = LossGraph(task_losses(heads, z.float(), SCALES), shared)
        v = direction(graph.theta, 0, torch.tensor(seed))
        rows = [torch.autograd.grad(x, graph.theta, retain_graph=True) for x in graph.losses]
        norms = torch.stack([length(list(row)) for row in rows]).double()
        errors.append((slopes(graph, v) - oracle(graph, v)) / norms)
    assert torch.stack(errors).square().mean(0).sqrt().max() < most


def several_calls(trunk: nn.Module, heads: nn.Module) -> list[Tensor]:
    z = [trunk(inputs(seed=i)) for i in range(3)]
    trunk(inputs(seed=9))  # nobody uses it
    return [z[0].square().mean() + z[1].mean(), z[1].square().sum(), heads(z[2]).mean()]


def overwritten(trunk: nn.Module, heads: nn.Module) -> list[Tensor]:
    z = trunk(inputs())
    z.mul_(3)
    return task_losses(heads, z, SCALES)


def evaluated_between(trunk: nn.Module, heads: nn.Module) -> list[Tensor]:
    losses = task_losses(heads, trunk(inputs()), SCALES)
    with torch.no_grad():
        trunk(inputs(seed=4))
    torch.rand(100)
    return losses


def checkpointed_from_outside(trunk: nn.Module, heads: nn.Module) -> list[Tensor]:
    z = checkpoint(trunk, inputs(), use_reentrant=False)
    assert isinstance(z, Tensor)
    return task_losses(heads, z, SCALES)


CASES = (several_calls, evaluated_between, checkpointed_from_outside)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        *((case, name) for case in CASES for name in ("gru", "lstm")),
        (overwritten, "convolutions"),
    ],
)
def test_ways_to_call_the_module(case: Callable[..., list[Tensor]], name: str) -> None:
    trunk, heads, shared = setting(name)
    assert_as_the_gradients(LossGraph(case(trunk, heads), shared))


def test_parameters_that_are_all_zero() -> None:
    _, heads, _ = setting("perceptron")
    linear = nn.Linear(15, 8).double()
    for p in linear.parameters():
        nn.init.zeros_(p)
    shared = kept(linear)
    z = linear(inputs().flatten(1))
    assert_as_the_gradients(LossGraph(task_losses(heads, z, SCALES), shared))


# ---- calls that cannot be made again ------------------------------------------------------


def test_none_where_an_input_was_written_into() -> None:
    trunk, heads, shared = setting("perceptron")
    x = inputs()
    graph = LossGraph(task_losses(heads, trunk(x), SCALES), shared)
    assert Rerun.at(graph, graph.edges) is not None
    x.mul_(2)  # what is kept of the call is not what was passed any more
    assert Rerun.at(graph, graph.edges) is None


def test_none_where_the_call_was_made_with_other_parameters() -> None:
    trunk, heads, shared = setting("perceptron")
    others = {name: 1.5 * p for name, p in trunk.named_parameters()}
    z = torch.func.functional_call(trunk, others, (inputs(),))
    graph = LossGraph(task_losses(heads, z, SCALES), shared)
    assert Rerun.at(graph, graph.edges) is None


def test_none_where_no_call_was_kept_and_where_there_are_no_features() -> None:
    trunk, heads, _ = setting("perceptron")
    shared = as_shared(trunk)  # not told to keep calls
    graph = LossGraph(task_losses(heads, trunk(inputs()), SCALES), shared)
    assert graph.edges is not None
    assert Rerun.at(graph, graph.edges) is None
    parameters = as_shared(list(trunk.parameters()))
    graph = LossGraph(task_losses(heads, trunk(inputs()), SCALES), parameters)
    assert Rerun.at(graph, graph.edges) is None


# ---- what is left behind ------------------------------------------------------------------


def everything(module: nn.Module) -> dict[str, Any]:
    """Values, memory and versions of all that the rerun could have touched."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "values": {n: t.detach().clone() for n, t in tensors.items()},
        "places": {n: (id(t), t.data_ptr(), t._version, t.stride()) for n, t in tensors.items()},
        "modes": [m.training for m in module.modules()],
        "random": torch.get_rng_state(),
    }


def assert_unchanged(before: dict[str, Any], module: nn.Module) -> None:
    after = everything(module)
    assert before["places"] == after["places"]
    assert before["modes"] == after["modes"]
    assert torch.equal(before["random"], after["random"])
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name


TRUNK_NAMES = ["lstm", "gru", "convolutions", "embedding", "transformer", "checkpointed"]


@pytest.mark.parametrize("name", [*TRUNK_NAMES, "spectral-norm"])
def test_nothing_changes_and_the_module_is_called_once_more(name: str) -> None:
    trunk, heads, shared = setting(name)
    calls: list[None] = []
    trunk.register_forward_pre_hook(lambda module, args: calls.append(None))
    z = features_of(trunk(inputs()))
    graph = LossGraph(task_losses(heads, z, SCALES), shared)
    rerun = rerun_of(graph)
    before = everything(trunk)
    by_difference(rerun, along(graph), torch.tensor(1e-6).double())
    assert_unchanged(before, trunk)
    # spectral normalisation has other buffers now, so z is computed again as well
    assert len(calls) == (3 if name == "spectral-norm" else 2)
    assert shared.hook._current is None
    torch.autograd.grad(graph.losses[0], graph.theta, allow_unused=True)  # the graph is whole


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
    shared = kept(trunk)
    z, y = trunk(inputs()), trunk(inputs(seed=1))
    graph = LossGraph([z.mean(), (z * y).square().mean()], shared)
    rerun, step, before = rerun_of(graph), torch.tensor(1e-6).double(), everything(trunk)
    with pytest.raises(RuntimeError, match="out of order"):
        by_difference(rerun, along(graph), step)
    assert_unchanged(before, trunk)
    trunk.at = 0
    assert_as_the_gradients(graph)  # the graph is whole, the hooks work


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
    shared = kept(trunk)
    z = trunk(torch.randn(5, 4, 3, 3))
    assert_as_the_gradients(LossGraph([z.square().mean(), z.sin().sum()], shared), 1e-2)
    assert len(trunk.seen) == 2
    assert trunk.seen[0] == trunk.seen[1]


def test_inside_autocast_no_stale_copies_of_parameters() -> None:
    """Autocast keeps copies of parameters: the rerun must neither use nor leave any."""
    trunk, heads, shared = setting("perceptron", torch.float32)
    x = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        z = trunk(x)
        graph = LossGraph(task_losses(heads, z, SCALES), shared)
        change = by_difference(rerun_of(graph), along(graph), torch.tensor(1e-2))
        again = trunk(x)
    assert all(bool(dz.any()) for dz in change)
    assert torch.equal(again, z)
