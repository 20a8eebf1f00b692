from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from gaba.turbofan.losses import TASKS, Batch, losses, sample_weights
from gaba.turbofan.model import Output


def example(seed: int, count: int = 40) -> tuple[Output, Batch]:
    rng = np.random.default_rng(seed)
    rul = torch.from_numpy(rng.uniform(0, 125, count))
    output: Output = {
        "rul": torch.from_numpy(rng.normal(70, 40, count)).requires_grad_(),
        "health": torch.from_numpy(rng.normal(0, 2, (count, 3))).requires_grad_(),
    }
    health = torch.from_numpy(rng.integers(0, 3, count))
    return output, Batch(torch.zeros(count, 30, 17), rul, health)


@pytest.mark.parametrize("seed", range(4))
def test_losses_equal_their_formulas(seed: int) -> None:
    output, batch = example(seed)
    found = losses(output, batch)
    error = output["rul"].detach().numpy() - batch.rul.numpy()
    logits = log_softmax(output["health"].detach().numpy(), axis=1)
    assert tuple(found) == TASKS
    assert found["rul"].item() == pytest.approx(np.mean(error**2), rel=1e-12)
    expected = -np.mean(logits[np.arange(len(error)), batch.health.numpy()])
    assert found["health"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_weighted_samples_change_the_rul_loss_only(seed: int) -> None:
    output, batch = example(seed)
    plain, weighted = losses(output, batch), losses(output, batch, weigh_samples=True)
    assert torch.equal(plain["health"], weighted["health"])
    rul = batch.rul.numpy()
    weights = 1 + np.clip(1 - rul / 125, 0, 1)
    expected = np.mean(weights * (output["rul"].detach().numpy() - rul) ** 2)
    assert weighted["rul"].item() == pytest.approx(expected, rel=1e-12)
    assert plain["rul"] < weighted["rul"] <= 2 * plain["rul"]


@pytest.mark.parametrize("seed", range(2))
def test_the_gradient_of_an_error_is_multiplied_by_its_sample_weight(seed: int) -> None:
    output, batch = example(seed)
    (plain,) = torch.autograd.grad(losses(output, batch)["rul"], output["rul"])
    (weighted,) = torch.autograd.grad(
        losses(output, batch, weigh_samples=True)["rul"], output["rul"]
    )
    torch.testing.assert_close(weighted / plain, sample_weights(batch.rul))


def test_sample_weights_fall_from_two_at_failure_to_one_at_the_cap() -> None:
    weights = sample_weights(torch.linspace(-10, 200, 211, dtype=torch.float64))
    assert weights[:11].tolist() == [2.0] * 11
    assert weights[135:].tolist() == [1.0] * 76
    middle = weights[10:136]
    torch.testing.assert_close(middle.diff(), torch.full_like(middle[1:], -1 / 125))


def test_a_perfect_answer_has_no_rul_loss() -> None:
    output, batch = example(0)
    output["rul"] = batch.rul.clone()
    assert losses(output, batch, weigh_samples=True)["rul"].item() == 0.0
