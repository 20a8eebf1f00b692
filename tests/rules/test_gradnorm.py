"""GradNorm against autograd of its own loss, and its fixed point."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from _streams import both, led, stream
from gaba.rules import GradNorm, InverseNorm, Seen


def by_autograd(
    along: list[Seen], alpha: float, rate: float, descent: Literal["adam", "sgd"]
) -> Tensor:
    """The published algorithm: autograd of Σ|w g − ḡ r^α|, torch's own optimizer, Σ w = K."""
    n_tasks = len(along[0].losses)
    w = torch.ones(n_tasks, dtype=torch.float64, requires_grad=True)
    kind = torch.optim.Adam if descent == "adam" else torch.optim.SGD
    optimizer, rows = kind([w], lr=rate), []
    for seen in along:
        rows.append(w.detach().clone())
        ratio = seen.losses / along[0].losses
        pulls = w * seen.norms
        wanted = (pulls.mean() * (ratio / ratio.mean()) ** alpha).detach()
        optimizer.zero_grad()
        (pulls - wanted).abs().sum().backward()
        optimizer.step()
        with torch.no_grad():
            w.clamp_(min=0)
            w.mul_(n_tasks / w.sum())
    return torch.stack(rows)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(("descent", "rate"), [("adam", 0.025), ("adam", 0.3), ("sgd", 0.001)])
@pytest.mark.parametrize("n_tasks", [2, 3, 10])
def test_every_step_is_that_of_autograd(
    alpha: float, descent: Literal["adam", "sgd"], rate: float, n_tasks: int
) -> None:
    along = stream(n_tasks, steps=60, seed=n_tasks, spread=0.3)
    found, _ = led(GradNorm(alpha, rate, descent), along)
    expected = by_autograd(along, alpha, rate, descent)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(expected[-1], torch.ones(n_tasks).double(), atol=1e-3)


@pytest.mark.parametrize(
    "norms", [[3.0, 1.0], [5.0, 0.2, 1.0], [4.0, 1.0, 1.0, 0.25, 2.0]], ids=str
)
def test_at_alpha_zero_the_fixed_point_is_inverse_norm(norms: list[float]) -> None:
    g = torch.tensor(norms, dtype=torch.float64)
    wanted = len(norms) * InverseNorm()(g)
    state = None
    for rate in (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6):  # |x| has a kink: it ends within a few rates
        along = [both(torch.rand(len(norms)) + 0.5, g)] * 200
        weights, state = led(GradNorm(0.0, rate), along, state=state)
    torch.testing.assert_close(weights[-1], wanted, rtol=0, atol=1e-4)
    contributions = weights[-1] * g
    assert float(contributions.max() / contributions.min()) < 1.001


@pytest.mark.parametrize("ratio", [[0.9, 0.3], [0.2, 1.4, 0.8]], ids=str)
def test_at_alpha_one_contributions_end_in_the_proportions_of_the_rates(ratio: list[float]) -> None:
    rates, g = torch.tensor(ratio).double(), torch.linspace(3, 1, len(ratio)).double()
    _, state = led(GradNorm(1.0), [both(torch.ones(len(ratio)), g)])
    for rate in (0.1, 0.01, 1e-3, 1e-4, 1e-5):
        weights, state = led(GradNorm(1.0, rate), [both(rates, g)] * 200, state=state)
    parts = weights[-1] * g / rates
    assert float(parts.max() / parts.min()) < 1.001


def test_the_first_step_by_hand() -> None:
    # c = (3, 1), c̄ = 2, r = 1: slopes (+3, −1); w = (1 − .3, 1 + .1) → times 2/1.8
    rule = GradNorm(alpha=1.0, learning_rate=0.1, descent="sgd")
    seen = both([7.0, 0.5], [3.0, 1.0])
    weights, state = rule.update(seen, rule.init(2))
    assert weights.tolist() == [1.0, 1.0]  # the step acts in the next one
    torch.testing.assert_close(state.weights, torch.tensor([1.4 / 1.8, 2.2 / 1.8]).double())
    assert state.first.tolist() == [7.0, 0.5]


def test_a_weight_is_never_negative_and_comes_back_from_zero() -> None:
    rule = GradNorm(alpha=0.0, learning_rate=0.9, descent="sgd")
    loud = both([1.0, 1.0], [2.0, 1.0])
    weights, state = led(rule, [loud] * 2)
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 2.0]).double())
    assert float(state.weights[0]) > 0


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_a_first_loss_of_zero_is_not_the_one_to_compare_with(alpha: float) -> None:
    along = [
        both([0.0, 0.0], [2.0, 1.0]),
        both([0.0, 4.0], [2.0, 1.0]),
        both([3.0, 2.0], [2.0, 1.0]),
    ]
    weights, state = led(GradNorm(alpha), [*along, *along])
    assert state.first.tolist() == [3.0, 4.0]
    assert weights.isfinite().all()
    assert (state.weights != 1).all()


def test_a_late_task_starts_from_its_own_first_loss() -> None:
    along, here = stream(3, steps=6), [torch.tensor([True, True, k >= 3]) for k in range(6)]
    _, state = led(GradNorm(), along, here)
    assert state.first[2] == along[3].losses[2]
    torch.testing.assert_close(state.weights.sum(), torch.tensor(3.0).double())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"descent": "newton"}, "descent"),
    ],
)
def test_settings_out_of_range(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GradNorm(**settings)
