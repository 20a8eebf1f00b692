"""UW-SO against torch's softmax, and where the variances of uncertainty weighting come to rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaba.rules import ScaleInvariant, SoftInverseLoss, Uncertainty
from gaba.rules.rule import Seen

LOSSES = torch.tensor([0.3, 2.0, 0.7, 5.0], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_it_is_the_softmax_of_inverse_losses(temperature: float) -> None:
    found = SoftInverseLoss(temperature).raw(LOSSES)
    expected = torch.softmax(1 / (LOSSES + 1e-8) / temperature, -1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_inverse_losses_are_where_learnt_variances_come_to_rest() -> None:
    """So the softmax is over the multipliers that uncertainty weighting would learn, times 2."""
    rule = Uncertainty(learning_rate=0.05)
    state, learnt = rule.init(4), LOSSES
    for _ in range(800):
        learnt, state = rule.update(Seen(LOSSES, LOSSES), state)
    torch.testing.assert_close(2 * learnt, ScaleInvariant().raw(LOSSES), rtol=1e-4, atol=0)
    found, rest = SoftInverseLoss(0.7).raw(LOSSES), 2 * learnt / 0.7
    torch.testing.assert_close(found, torch.softmax(rest, -1), rtol=1e-3, atol=0)


def test_its_limits_are_equal_weights_and_the_smallest_loss_alone() -> None:
    np.testing.assert_allclose(SoftInverseLoss(1e9)(LOSSES.numpy()), np.full(4, 0.25), rtol=1e-6)
    np.testing.assert_allclose(SoftInverseLoss(1e-3)(LOSSES.numpy()), [1, 0, 0, 0], atol=1e-12)


def test_a_loss_that_is_not_above_zero_is_refused() -> None:
    rule = SoftInverseLoss()
    assert rule.unfit(torch.tensor([1.0, 0.0, -1.0]), ()) is not None
    assert rule.raw(torch.tensor([1.0, -1.0])).isnan().all()
    with pytest.raises(ValueError, match="temperature must be finite and positive"):
        SoftInverseLoss(0.0)
