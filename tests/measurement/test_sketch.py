"""The sketch against v · ∇L from plain backward passes, and its stated bias and error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from _engines import observe
from _trunks import TRUNKS, features_of, inputs, task_losses
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import as_shared
from gaba.measurement import ExactNorms, SketchNorms
from gaba.measurement.directions import direction
from gaba.measurement.sketch import SketchState
from gaba.tensors import spread

SCALES = (1.0, 500.0, 0.02)
ONCE = SketchNorms(decay=0.0)


def setting(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    trunk, heads = TRUNKS[name]().to(dtype), nn.Linear(8, len(SCALES)).to(dtype)
    shared = as_shared(trunk)
    shared.keep_calls()
    return trunk, heads, shared


def norms_of(graph: LossGraph) -> Tensor:
    return observe(ONCE, graph)[0].norms


def slopes(graph: LossGraph, count: int = 0) -> Tensor:
    """The oracle: v · ∇L_k, with the gradients from K backward passes."""
    theta = list(graph.shared.parameters())
    v = direction(theta, 0, torch.tensor(count))
    found = []
    for loss in graph.losses:
        grads = torch.autograd.grad(loss, theta, retain_graph=True, allow_unused=True)
        parts = [(g.to_dense() * d).sum() for g, d in zip(grads, v, strict=True) if g is not None]
        found.append(torch.stack(parts).sum())
    return torch.stack(found).double()


@pytest.mark.filterwarnings("ignore:.*isinstance_check:DeprecationWarning")
@pytest.mark.parametrize("name", TRUNKS)
def test_slopes_along_the_direction_are_those_of_the_gradients(name: str) -> None:
    """In training, with dropout: other masks than in the losses would not pass."""
    trunk, heads, shared = setting(name)
    rtol = 1e-3 if name == "spectral-norm" else 1e-5  # its own state moves on with every call
    for count in range(3):
        z = features_of(trunk(inputs(seed=count)))
        graph = LossGraph(task_losses(heads, z, SCALES), shared)
        state = SketchState(
            torch.zeros(3, 3).double(), torch.zeros(3).double(), torch.tensor(count)
        )
        seen, state = observe(ONCE, graph, state, gramian=True)
        expected = slopes(graph, count)
        torch.testing.assert_close(seen.norms, expected.abs(), rtol=rtol, atol=0)
        torch.testing.assert_close(
            seen.gramian, torch.outer(expected, expected), rtol=2 * rtol, atol=1e-300
        )
        assert int(state.draws) == count + 1


forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


@forward_mode
@pytest.mark.parametrize("name", ["convolutions", "gru", "perceptron", "checkpointed"])
def test_forward_mode_has_no_error(name: str) -> None:
    trunk, heads, shared = setting(name)
    if name == "gru":
        trunk.forward = lambda x: trunk.cell(trunk.drop(trunk.conv(x.mT).mT))[0][:, -1]  # type: ignore[method-assign,operator,union-attr]
    graph = LossGraph(task_losses(heads, trunk(inputs()), SCALES), shared)
    seen, _ = observe(SketchNorms(decay=0.0, method="forward"), graph)
    torch.testing.assert_close(seen.norms, slopes(graph).abs(), rtol=1e-10, atol=0)


class Sine(torch.autograd.Function):
    """A function of somebody's own, without a forward-mode derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.saved_tensors[0].cos()


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(15, 8)

    def forward(self, x: Tensor) -> Any:
        return Sine.apply(self.layer(x.flatten(1)))


@forward_mode
@pytest.mark.parametrize("name", ["lstm", "custom function"])
def test_forward_mode_names_the_remedy_where_a_part_lacks_it(name: str) -> None:
    torch.manual_seed(0)
    trunk = Custom() if name == "custom function" else TRUNKS[name]()
    heads, shared = nn.Linear(8, len(SCALES)), as_shared(trunk)
    shared.keep_calls()
    x = inputs(dtype=torch.float32)
    graph = LossGraph(task_losses(heads, trunk(x), SCALES), shared)
    with pytest.raises(RuntimeError, match='method="difference"'):
        observe(SketchNorms(method="forward"), graph)
    assert observe(SketchNorms(), graph)[0].norms.isfinite().all()


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
    graph = LossGraph(case(trunk, heads), shared)
    torch.testing.assert_close(norms_of(graph), slopes(graph).abs(), rtol=1e-5, atol=0)


def test_a_task_on_one_of_several_features() -> None:
    trunk, _, shared = setting("convolutions")
    one, two = trunk(inputs()), trunk(inputs(seed=1))
    other = nn.Parameter(torch.ones(3).double())
    graph = LossGraph([one.square().mean(), two.mean(), other.sum()], shared)
    seen, _ = observe(ONCE, graph)
    assert seen.unreached == (2,)
    torch.testing.assert_close(
        seen.norms[:2], slopes(LossGraph(graph.losses[:2], shared)).abs(), rtol=1e-5, atol=0
    )


def leak(trunk: nn.Module, z: Tensor, x: Tensor) -> Tensor:
    return z.mean() + trunk.get_parameter("out.weight").square().sum()


def no_leak(trunk: nn.Module, z: Tensor, x: Tensor) -> Tensor:
    x.mul_(2)  # what is kept of the call is not what was passed any more
    return z.mean()


@pytest.mark.parametrize("case", [leak, no_leak])
@pytest.mark.parametrize("gradients", [True, False])
def test_exact_norms_where_the_calls_cannot_be_made_again(case: Any, gradients: bool) -> None:
    trunk = nn.Sequential()
    trunk.add_module("flat", nn.Flatten())
    trunk.add_module("out", nn.Embedding.from_pretrained(torch.eye(15), freeze=False))
    trunk.double()
    trunk.forward = lambda x: torch.tanh(x.flatten(1) + 1) @ trunk.out.weight  # type: ignore[method-assign,operator]
    shared = as_shared(trunk)
    shared.keep_calls()
    x = inputs()
    z = trunk(x)
    losses = [case(trunk, z, x), z.square().mean()]
    state = SketchNorms().init(2)
    graph = LossGraph(losses, shared)
    expected, _ = observe(ExactNorms(), graph, gramian=True)
    seen, after = observe(SketchNorms(), graph, state, gramian=True, gradients=gradients)
    assert torch.equal(seen.norms, expected.norms)
    assert torch.equal(seen.gramian, expected.gramian)  # type: ignore[arg-type]
    assert after is state
    assert (seen.gradients is not None) == gradients


def test_exact_norms_where_the_call_was_made_with_other_parameters() -> None:
    trunk, heads, shared = setting("perceptron")
    others = {name: 1.5 * p for name, p in trunk.named_parameters()}
    z = torch.func.functional_call(trunk, others, (inputs(),))
    graph = LossGraph(task_losses(heads, z, SCALES), shared)
    seen, expected = (observe(engine, graph)[0].norms for engine in (SketchNorms(), ExactNorms()))
    assert torch.equal(seen, expected)
    assert (seen > 0).all()


def test_exact_norms_where_no_call_was_kept() -> None:
    trunk, heads, _ = setting("perceptron")
    shared = as_shared(trunk)  # not told to keep calls
    z = trunk(inputs())
    graph = LossGraph(task_losses(heads, z, SCALES), shared)
    seen, expected = (observe(engine, graph)[0].norms for engine in (SketchNorms(), ExactNorms()))
    assert torch.equal(seen, expected)


def test_squares_are_unbiased_and_as_noisy_as_stated() -> None:
    """Against exact norms: mean g², relative variance 2 (1 − Σ g_i⁴/g⁴)."""
    torch.manual_seed(0)
    trunk, draws = nn.Linear(3, 2).double(), 800
    shared = as_shared(trunk)
    shared.keep_calls()
    z = trunk(torch.randn(8, 3).double())
    losses = [z.square().mean(), (z[:, 0] * 30 + z[:, 1]).exp().mean().log()]
    graph = LossGraph(losses, shared)
    g = [torch.autograd.grad(loss, list(trunk.parameters()), retain_graph=True) for loss in losses]
    own = torch.stack([torch.cat([p.flatten() for p in row]) for row in g])
    exact = own @ own.T
    state, squares = SketchNorms().init(2), []
    for _ in range(draws):
        seen, state = observe(ONCE, graph, state)
        squares.append(seen.norms.square() / exact.diagonal())
    ratio = torch.stack(squares)
    variance = 2 * (1 - own.pow(4).sum(1) / exact.diagonal().square())
    assert ((ratio.mean(0) - 1).abs() < 4 * (variance / draws).sqrt()).all()
    torch.testing.assert_close(ratio.var(0), variance, rtol=0.25, atol=0)
    together = observe(SketchNorms(probes=draws, decay=0.0), graph, gramian=True)[0].gramian
    length = exact.diagonal().sqrt()
    assert together is not None
    assert ((together - exact) / length / length[:, None]).abs().max() < 4 * (2 / draws) ** 0.5
    torch.testing.assert_close(together.diagonal() / exact.diagonal(), ratio.mean(0))


@pytest.mark.parametrize(("probes", "decay", "steps"), [(1, 0.9, 4), (1, 0.9, 60), (3, 0.8, 30)])
def test_bias_and_standard_error_after_smoothing(probes: int, decay: float, steps: int) -> None:
    """V of the square and −V/8 of the root, over 600 tasks that know nothing of each other."""
    n = 600
    state = SketchNorms().init(n)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        s = 3 * torch.randn(probes, n, generator=generator, dtype=torch.float64)
        state = state.advance(s, decay)
    squares = state.gramian.diagonal() / 9
    d = decay
    variance = 2 / probes * (1 - d) / (1 + d) * (1 + d**steps) / (1 - d**steps)
    assert abs(float(squares.mean()) - 1) < 4 * (variance / n) ** 0.5
    assert float(squares.var()) == pytest.approx(variance, rel=0.25)
    bias = float(squares.sqrt().mean()) - 1
    assert bias == pytest.approx(-variance / 8, abs=4 * (variance / 4 / n) ** 0.5 + variance**2 / 8)


def test_missing_tasks_keep_theirs_and_the_gramian_stays_positive_semidefinite() -> None:
    generator, state = torch.Generator().manual_seed(0), SketchNorms().init(4)
    for step in range(40):
        tasks = [k for k in range(4) if (step + k) % 3]
        drawn = torch.randn(len(tasks), 1, generator=generator, dtype=torch.float64)
        new = state.advance(spread(drawn, tasks, 4).T, 0.9)
        for k in set(range(4)) - set(tasks):
            assert torch.equal(new.products[k, k], state.products[k, k])
            assert torch.equal(new.mass[k], state.mass[k])
        state = new
        values = torch.linalg.eigvalsh(state.products)
        assert values.min() > -1e-12 * values.max()


@pytest.mark.parametrize("name", ["convolutions", "transformer", "lstm"])
def test_the_stated_error_in_float32_and_under_bfloat16_autocast(name: str) -> None:
    for low in (False, True):
        trunk, heads, shared = setting(name, torch.float32)
        errors = []
        for count in range(30):
            x = inputs(n=32, seed=count, dtype=torch.float32)
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                z = trunk(x)
            graph = LossGraph(task_losses(heads, z.float(), SCALES), shared)
            state = SketchState(
                torch.zeros(3, 3).double(), torch.zeros(3).double(), torch.tensor(count)
            )
            expected, exact = slopes(graph, count).abs(), observe(ExactNorms(), graph)[0].norms
            errors.append((observe(ONCE, graph, state)[0].norms - expected) / exact)
        rms = torch.stack(errors).square().mean(0).sqrt()
        assert rms.max() < (0.5 if low else 0.02)


def test_parameters_that_are_all_zero() -> None:
    _, heads, _ = setting("perceptron")
    linear = nn.Linear(15, 8).double()
    for p in linear.parameters():
        nn.init.zeros_(p)
    shared = as_shared(linear)
    shared.keep_calls()
    z = linear(inputs().flatten(1))
    graph = LossGraph(task_losses(heads, z, SCALES), shared)
    torch.testing.assert_close(norms_of(graph), slopes(graph).abs(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "bad",
    [
        *({"probes": 0}, {"decay": 1.0}, {"decay": -0.1}, {"method": "both"}),
    ],
)
def test_settings_that_break_a_rule(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SketchNorms(**bad)
