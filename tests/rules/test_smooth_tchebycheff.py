"""The smooth maximum against autograd of its formula."""

from __future__ import annotations

import pytest
import torch

from _streams import both, led, stream
from gaba.rules import ScaleInvariant, SmoothTchebycheff


@pytest.mark.parametrize("mu", [0.01, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("n_tasks", [1, 2, 10])
@pytest.mark.parametrize(("warm_up", "window"), [(0, 1), (3, 4)])
def test_every_step_is_that_of_autograd(mu: float, n_tasks: int, warm_up: int, window: int) -> None:
    along = stream(n_tasks, steps=20, seed=n_tasks)
    found, _ = led(SmoothTchebycheff(mu, warm_up, window), along)
    averaged = [seen.losses for seen in along[warm_up : warm_up + window]]
    nadir = torch.stack(averaged).mean(0)
    for step, seen in enumerate(along):
        losses = seen.losses.clone().requires_grad_()
        if step < warm_up + window:
            losses.log().sum().backward()
        else:
            relative = (losses / nadir).log()
            (n_tasks * mu * torch.logsumexp(relative / mu, -1)).backward()
        torch.testing.assert_close(found[step], losses.grad, rtol=1e-10, atol=1e-300)


def test_small_mu_looks_at_the_worst_task_and_large_mu_at_all_alike() -> None:
    along = [both([1.0] * 3), both([0.5, 0.9, 0.1])]
    worst, _ = led(SmoothTchebycheff(1e-3, 0, 1), along)
    torch.testing.assert_close(worst[1], torch.tensor([0.0, 3 / 0.9, 0.0]).double())
    even, _ = led(SmoothTchebycheff(1e6, 0, 1), along)
    torch.testing.assert_close(even[1], ScaleInvariant().raw(along[1].losses), rtol=1e-5, atol=0)


def test_a_late_task_warms_up_by_itself() -> None:
    along = stream(2, steps=8)
    flags = [torch.tensor([True, step >= 4]) for step in range(8)]
    weights, state = led(SmoothTchebycheff(1.0, 1, 2), along, flags)
    assert state.count.tolist() == [3, 3]
    assert weights[5, 1] == 1 / along[5].losses[1]  # still warming up
    assert weights[5, 0] == 1 / along[5].losses[0]  # the only one of the softmax
    averaged = torch.stack([along[5].losses[1], along[6].losses[1]]).mean()
    torch.testing.assert_close(state.total[1] / 2, averaged)
    assert weights[7, 1] != 1 / along[7].losses[1]


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_without_logarithm_gives_nan(loss: float) -> None:
    along = [both([1.0] * 2), both([loss, 1.0])]
    weights, _ = led(SmoothTchebycheff(1.0, 0, 1), along)
    assert weights[1].isnan().any()


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"mu": 0.0}, "mu"), ({"warm_up": -1}, "warm_up"), ({"window": 0}, "window")],
)
def test_settings_out_of_range(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SmoothTchebycheff(**settings)
