"""Situations in which other projects were reported to fail; the right behavior is a test here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _models import TwoStage, batch, grads

X = batch(dtype=torch.float64)
EXACT = pytest.mark.parametrize("method", ["gaba", "inverse", "equal-share"])


def two() -> nn.Parameter:
    """Shared parameters of which each of two tasks reaches one: gradients at right angles."""
    return nn.Parameter(torch.ones(2, dtype=torch.float64))


def net(scales: tuple[float, ...] = (1.0, 30.0)) -> TwoStage:
    return TwoStage(scales, dtype=torch.float64)


class NaNGradient(torch.autograd.Function):
    """A loss as it is, whose gradient is NaN, as that of √x at 0 under a mask."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * torch.nan


# ---- which batch has which task -----------------------------------------------------------------


@EXACT
@pytest.mark.parametrize("turns", [[0, 1], [0, 0, 1, 1, 1]], ids=["by turns", "in stretches"])
def test_every_batch_has_one_task(method: str, turns: list[int]) -> None:
    """sentence-transformers-3243, sentence-transformers-927, LibMTL-44."""
    w, norms = two(), (20.0, 1.0)
    balancer = gaba.Balancer(["a", "b"], [w], method)
    pulls: list[list[float]] = [[], []]
    for step in range(300):
        w.grad, k = None, turns[step % len(turns)]
        balancer.backward({"ab"[k]: norms[k] * w[k]})
        assert w.grad is not None
        pulls[k].append(abs(float(w.grad[k])))
    assert pulls[0][-1] == pytest.approx(pulls[1][-1], rel=0.01)


@EXACT
@pytest.mark.parametrize(
    "norms",
    [(1.0, 5.0), *(pytest.param(n, marks=pytest.mark.slow) for n in ((5.0, 1.0), (1.0, 1.0)))],
)
@pytest.mark.parametrize("at", [(0,), (1,), (1, 2)], ids=["first", "second", "two"])
def test_labels_of_a_task_in_few_micro_batches(
    method: str, norms: tuple[float, float], at: tuple[int, ...]
) -> None:
    """graphium-413: the gradient that the optimizer gets holds both tasks in equal parts."""
    w, size = two(), 4
    balancer = gaba.Balancer(["a", "b"], [w], method, accumulate=size)
    late = torch.zeros(2, dtype=torch.float64)
    for window in range(150):
        w.grad = None
        for n in range(size):
            balancer.backward({"a": norms[0] * w[0], "b": norms[1] * w[1] if n in at else None})
        assert w.grad is not None
        late += w.grad.abs() if window >= 140 else 0
    assert float(late[0]) == pytest.approx(float(late[1]), rel=0.03)
    said = str(balancer.diagnose())
    assert "accumulate" in balancer.history.about
    assert "Fine: the tasks pull equally hard" in said
    assert "Few steps have every task" not in said


def test_the_record_counts_the_window_and_not_the_micro_batch() -> None:
    """graphium-413: a task in 1 of 4 micro-batches pulls a quarter as hard as its gradient."""
    w = two()
    observer = gaba.Observer(["a", "b"], [w], every=1, accumulate=4)
    for step in range(400):
        w.grad = None
        observer.backward({"a": w[0], "b": 40 * w[1] if step % 4 == 2 else None})
    said = str(observer.diagnose())
    assert "'b' drowns 'a', 10.0 to 1" in said


# ---- what a loss is worth -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -3.0])
@pytest.mark.parametrize("method", ["gaba", "inverse", "equal-share", "equal-projection"])
def test_a_loss_of_zero_or_less_with_a_real_gradient(method: str, value: float) -> None:
    """trl-2703, returnn-1835, encodec-38, FAMO-9: rules of norms and shares see gradients only."""
    results = []
    for offset in (value, 7.0):
        w = two()
        balancer = gaba.Balancer(["a", "b"], [w], method)
        for _ in range(50):
            balancer.backward({"a": 8 * w[0], "b": w[1] - w[1].detach() + offset})
        results.append(balancer.multipliers)
        assert balancer.history.finite.all()
    assert results[0] == results[1]
    assert 8 * results[0]["a"] == pytest.approx(results[0]["b"], rel=1e-3)


LOGARITHMIC = (
    *("db-mtl", "famo", "scale-invariant", "geometric-mean", "smooth-tchebycheff"),
    "inverse-initial",
)


@pytest.mark.parametrize("by", ["backward", "forward"])
@pytest.mark.parametrize("value", [0.0, -3.0])
@pytest.mark.parametrize("method", LOGARITHMIC)
def test_a_rule_with_logarithms_refuses_the_loss_at_once(
    method: str, value: float, by: str
) -> None:
    """trl-2703, FAMO-9: not NaN, and not a run that never learns."""
    if (method, by) == ("db-mtl", "forward"):
        pytest.skip("db-mtl has no scalar loss, and says so")
    w = two()
    balancer = gaba.Balancer(["nll", "entropy"], [w], method)
    before = copy.deepcopy(balancer.state_dict())
    losses = {"nll": 8 * w[0], "entropy": w[1] - 1 + value}
    with pytest.raises(ValueError, match=r"losses\['entropy'\] must be above") as caught:
        getattr(balancer, by)(losses)
    assert f"{method!r}, found {value:g}" in str(caught.value)
    assert "use method='gaba'" in str(caught.value)
    assert w.grad is None
    assert len(balancer.history) == 0
    for name, tensor in before.items():
        if isinstance(tensor, Tensor):
            assert torch.equal(balancer.state_dict()[name], tensor), name


def test_a_loss_below_zero_that_the_rule_takes() -> None:
    """FAMO-9: with a lower bound of its own, and later than the first losses."""
    w = two()
    famo = gaba.rules.FAMO(minimum=[0.0, -10.0])
    for rule, offset in ((famo, -3.0), (gaba.rules.InverseInitial(), 1.0)):
        balancer = gaba.Balancer(["a", "b"], [w], gaba.Method(rule, scale="rule"))
        for n in range(3):
            balancer.backward({"a": 8 * w[0], "b": w[1] - 1 + (offset if n == 0 else -3.0)})
        assert balancer.history.finite.all()


def test_gradnorm_refuses_a_loss_that_changes_its_sign() -> None:
    """trl-2703: (L/L₀)^1.5 of a negative rate is no number."""
    w = two()
    balancer = gaba.Balancer(["a", "b"], [w], "gradnorm")
    balancer.backward({"a": 8 * w[0], "b": w[1]})
    with pytest.raises(ValueError, match=r"losses\['b'\] must be of the sign that it had first"):
        balancer.backward({"a": 8 * w[0], "b": w[1] - 3})


# ---- numbers that are none ----------------------------------------------------------------------


def spoilt(model: TwoStage, what: str) -> dict[str, Any]:
    losses: dict[str, Any] = model.losses(X)
    bad = losses["task1"]
    return losses | {"task1": NaNGradient.apply(bad) if what == "gradient" else bad * torch.nan}


def last_of(
    method: str, mode: Any, spoil: Callable[[TwoStage], dict[str, Any]], by: str = "backward"
) -> tuple[TwoStage, dict[str, Tensor], gaba.Balancer]:
    """The model after some steps and a spoilt one, its parameters before that, the Balancer."""
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, method, on_nonfinite=mode)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=0.1)
    before: dict[str, Tensor] = {}
    for step in range(6):
        optimizer.zero_grad()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        losses: Any = spoil(model) if step == 5 else model.losses(X)
        balancer.backward(losses) if by == "backward" else balancer(losses).backward()
        optimizer.step()
    return model, before, balancer


NONFINITE = pytest.mark.parametrize("what", ["gradient", "loss"])
METHODS = pytest.mark.parametrize("method", ["gaba", "inverse", "uniform"])


@METHODS
@NONFINITE
@pytest.mark.parametrize("by", ["backward", "forward"])
def test_skip_leaves_every_parameter_untouched(method: str, what: str, by: str) -> None:
    """latent-diffusion-176: momentum and weight decay included."""
    model, before, balancer = last_of(method, "skip", lambda m: spoilt(m, what), by)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]), name
    assert balancer.history.finite.tolist() == [True] * 5 + [False]
    assert balancer.last_step is not None
    assert not bool(balancer.last_step.finite)


@METHODS
@NONFINITE
def test_drop_makes_the_step_without_the_task(method: str, what: str) -> None:
    """latent-diffusion-176: as if the task had been left out."""
    dropped, _, balancer = last_of(method, "drop", lambda m: spoilt(m, what))
    left, _, _ = last_of(method, "pass", lambda m: m.losses(X) | {"task1": None})
    for a, b in zip(dropped.parameters(), left.parameters(), strict=True):
        assert torch.equal(a, b)
    assert balancer.history.losses[-1].tolist() == pytest.approx(
        [float(balancer.history.losses[-1, 0]), float("nan")], nan_ok=True
    )
    assert len(balancer.history) == 6


@METHODS
@NONFINITE
@pytest.mark.parametrize("by", ["backward", "forward"])
def test_raise_says_so_and_leaves_grad_as_it_was(method: str, what: str, by: str) -> None:
    """latent-diffusion-176."""
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, method, on_nonfinite="raise")
    balancer.backward(model.losses(X))
    found, losses = grads(model), spoilt(model, what)
    with pytest.raises(FloatingPointError, match="must be finite"):
        balancer.backward(losses) if by == "backward" else balancer(losses).backward()
    torch.testing.assert_close(grads(model), found, rtol=0, atol=0)


def test_pass_shows_a_gradscaler_what_it_looks_for() -> None:
    """latent-diffusion-176: the default, as the plain sum does."""
    model, _, _ = last_of("gaba", "pass", lambda m: spoilt(m, "gradient"))
    assert any(p.isnan().any() for p in model.trunk.parameters())


def test_a_whole_step_that_is_not_finite_is_skipped_by_drop() -> None:
    """latent-diffusion-176: nothing is left to make a step of."""

    def all_of_it(model: TwoStage) -> dict[str, Any]:
        return {name: NaNGradient.apply(loss) for name, loss in model.losses(X).items()}

    model, before, balancer = last_of("gaba", "drop", all_of_it)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not balancer.history.finite[-1]


def test_skip_keeps_what_earlier_micro_batches_brought() -> None:
    """latent-diffusion-176, with accumulation."""
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, accumulate=2, on_nonfinite="skip")
    balancer.backward(model.losses(X))
    found = grads(model)
    balancer.backward(spoilt(model, "gradient"))
    torch.testing.assert_close(grads(model), found, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["skip", "drop", "raise"])
def test_what_an_optimizer_has_done_inside_the_pass_cannot_be_undone(mode: Any) -> None:
    """latent-diffusion-176: a mode that cannot be kept is refused with its reason."""
    model = net()
    balancer = gaba.Balancer(model.names, model.trunk, on_nonfinite=mode)
    next(model.parameters()).register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match="on_nonfinite must be 'pass' where an optimizer steps"):
        balancer.backward(model.losses(X))


@pytest.mark.parametrize("method", ["gaba", "inverse", "equal-share", "uncertainty"])
@pytest.mark.parametrize("value", [1e308, 1e200])
def test_a_loss_of_1e308(method: str, value: float) -> None:
    """The plain sum's gradient, or that of what was learnt; afterwards as if it had not been."""
    w, clean = two(), two()
    balancer, twin = (gaba.Balancer(["a", "b"], [p], method) for p in (w, clean))
    for p, b in ((w, balancer), (clean, twin)):
        for _ in range(20):
            b.backward({"a": 8 * p[0], "b": p[1]})
    w.grad = None
    balancer.backward({"a": value * w[0], "b": w[1]})
    assert w.grad is not None
    assert w.grad.isfinite().all()
    for name, tensor in balancer.state_dict().items():
        if isinstance(tensor, Tensor):
            assert tensor.isfinite().all(), name
    for p, b in ((w, balancer), (clean, twin)):
        for _ in range(60):
            b.backward({"a": 8 * p[0], "b": p[1]})
    for task, m in twin.multipliers.items():
        assert balancer.multipliers[task] == pytest.approx(m, rel=0.05)


# ---- graphs and parameters ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("method", ["gaba", "inverse", "observe"])
def test_a_further_loss_on_the_same_graph(method: str, order: str) -> None:
    """encodec-20, gradnorm-pytorch-8: its gradient is added, and nothing else changes."""
    model, alone = net(), net()
    extra = nn.Linear(5, 1, dtype=torch.float64)
    balancers = [gaba.Balancer(m.names, m.trunk, method) for m in (model, alone)]
    for step in range(12):
        x = batch(step, dtype=torch.float64)
        for m in (model, alone):
            m.zero_grad()
        balancers[1].backward(alone.losses(x))
        z = model.trunk(x)
        losses = {
            name: scale * (head(z) - k).square().mean()
            for k, (name, scale, head) in enumerate(
                zip(model.names, model.scales, model.heads, strict=True)
            )
        }
        further = extra(z).square().mean()
        if order == "before":
            further.backward(retain_graph=True)
            balancers[0].backward(losses)
        else:
            balancers[0].backward(losses, retain_graph=True)
            further.backward()
        expected = grads(alone.trunk)
        own = torch.autograd.grad(
            extra(model.trunk(x)).square().mean(), list(model.trunk.parameters())
        )
        for (name, found), more in zip(grads(model.trunk).items(), own, strict=True):
            torch.testing.assert_close(found, expected[name] + more, rtol=1e-9, atol=1e-12)
    assert balancers[0].multipliers == pytest.approx(balancers[1].multipliers, rel=1e-9)


def test_all_parameters_passed_as_shared() -> None:
    """nash-mtl-6, PCGrad-1: what one task alone reaches is named."""
    model = net()
    for shared in (model, list(model.parameters())):
        balancer = gaba.Balancer(model.names, shared)
        for step in range(4):
            balancer.backward(model.losses(batch(step, dtype=torch.float64)))
        said = str(balancer.diagnose())
        assert "The shared part is not what the tasks share" in said
        assert "'task0' alone reaches 2 of 8" in said


@pytest.mark.parametrize("method", ["gaba", "inverse"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_trunk_in_eval(method: str, kind: Any) -> None:
    """TorchJD-220, pytorch-5261: without dropout its mode changes nothing."""
    found = []
    for training in (True, False):
        torch.manual_seed(0)
        trunk, head = kind(3, 4, num_layers=2, batch_first=True), nn.Linear(4, 2)
        trunk.train(training)
        balancer = gaba.Balancer(["a", "b"], trunk, method)
        for step in range(6):
            x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(step))
            out = head(trunk(x)[0][:, -1])
            balancer.backward({"a": out[:, 0].square().mean(), "b": 9 * out[:, 1].abs().mean()})
        found.append(balancer.multipliers)
    assert found[0] == found[1]
    assert found[0]["a"] > found[0]["b"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN refuses this on a GPU only")
@pytest.mark.parametrize("method", ["gaba", "inverse"])
def test_a_recurrent_trunk_on_cuda(method: str) -> None:
    """TorchJD-220, pytorch-5261: it works in train(), and in eval() the message names that."""
    trunk, head = nn.LSTM(3, 4, batch_first=True).cuda(), nn.Linear(4, 2).cuda()
    balancer = gaba.Balancer(["a", "b"], trunk, method)

    def losses() -> dict[str, Tensor]:
        out = head(trunk(torch.randn(4, 6, 3, device="cuda"))[0][:, -1])
        return {"a": out[:, 0].square().mean(), "b": 9 * out[:, 1].abs().mean()}

    for _ in range(4):
        assert bool(balancer.backward(losses()).finite)
    trunk.eval()
    with pytest.raises(RuntimeError, match=r"call rnn\.train\(\)"):
        balancer.backward(losses())


# ---- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "quiet"),
    [*[("gaba", q) for q in (0.0, 1e-20, 1e-6, 1e-3)], *[("inverse", q) for q in (0.0, 1e-20)]],
)
def test_a_gradient_that_vanishes_and_returns_gives_no_kick(method: str, quiet: float) -> None:
    """taming-transformers-93, taming-transformers-44, WF-VAE-7: at most as in the plain sum.

    The published weight of the adversarial loss would be 1e4 there.
    """
    w = two()
    balancer = gaba.Balancer(["a", "b"], [w], method)
    most = 0.0
    for step in range(1000):
        w.grad = None
        norm = quiet if 200 <= step < 800 else 10.0
        balancer.backward({"a": norm * w[0], "b": w[1]})
        assert w.grad is not None
        most = max(most, float(w.grad.norm())) if step else most
    plain = (10.0**2 + 1) ** 0.5
    assert most <= plain * (1 + 1e-9)
    assert balancer.history.finite.all()


@pytest.mark.parametrize("method", ["gaba", "inverse"])
def test_a_discriminator_that_starts_late_gives_no_kick(method: str) -> None:
    """taming-transformers-44, RAE-74: its loss is a constant 0 for long, then real."""
    w = two()
    balancer = gaba.Balancer(["rec", "adv"], [w], method)
    for step in range(60):
        w.grad = None
        adv = torch.zeros(()) if step < 50 else 1e-3 * w[1]
        balancer.backward({"rec": w[0], "adv": adv})
        assert w.grad is not None
        assert float(w.grad[0]) <= 1.001
        assert float(w.grad[1]) <= 1.0
    assert float(w.grad[1]) > 2e-3 if w.grad is not None else False
