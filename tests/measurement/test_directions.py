"""The random directions: independent, of variance 1, a function of seed and count alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaba.measurement._directions import Distribution, direction

LIKE = [torch.zeros(300, 100), torch.zeros(7), torch.zeros(2, 3, 5)]
KINDS: list[Distribution] = ["rademacher", "gaussian"]


def flat(kind: Any, seed: int = 0, count: int = 0, like: Any = LIKE) -> torch.Tensor:
    parts = direction(like, seed, torch.tensor(count), kind)
    return torch.cat(
        [torch.view_as_real(p).flatten() if p.is_complex() else p.flatten() for p in parts]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mean_0_variance_1_and_no_correlation(kind: Distribution) -> None:
    draws = torch.stack([flat(kind, seed, n) for seed in (0, 1, -3) for n in range(20)]).double()
    n = draws.shape[1]
    assert draws.mean().abs() < 5 / draws.numel() ** 0.5
    if kind == "rademacher":
        assert torch.equal(draws.abs(), torch.ones_like(draws))
    else:
        assert (draws.var() - 1).abs() < 5 * (2 / draws.numel()) ** 0.5
        assert (draws.pow(4).mean() - 3).abs() < 5 * (96 / draws.numel()) ** 0.5
    between = draws @ draws.T / n - torch.diag(draws.square().mean(1))
    assert between.abs().max() < 5.5 / n**0.5
    for shift in (1, 2, 8, 64):  # within a draw: neighbours, and the same bit of the next word
        assert (draws[:, shift:] * draws[:, :-shift]).mean().abs() < 5 / draws.numel() ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_seed_and_count_that_leaves_the_generators_alone(kind: Distribution) -> None:
    before = torch.get_rng_state()
    first = flat(kind, 3, 5)
    torch.rand(3)
    assert torch.equal(first, flat(kind, 3, 5))
    assert not torch.equal(first, flat(kind, 3, 6))
    assert not torch.equal(first, flat(kind, 4, 5))
    torch.set_rng_state(before)
    flat(kind, 1, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_dtypes_and_complex_numbers(kind: Distribution) -> None:
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.float32)
    like = [torch.zeros(3, 2, dtype=dtype) for dtype in dtypes] + [torch.zeros(0)]
    parts = direction(like, 0, torch.tensor(0), kind)
    assert [(p.shape, p.dtype) for p in parts] == [(p.shape, p.dtype) for p in like]
    pairs = torch.cat([torch.view_as_real(parts[3]).flatten(), parts[0].flatten()])
    assert len(torch.unique(torch.view_as_real(parts[3]))) > 1
    assert pairs.isfinite().all()
