"""The random directions: independent, of variance 1, a function of seed and count alone."""

from __future__ import annotations

from typing import Any

import torch

from gaba.measurement.directions import direction

SIGNS = [float(sign) for sign in (-1, 1, 1, -1, -1, 1, 1, -1, -1, -1, 1, 1, 1, 1, 1, -1)]
LIKE = [torch.zeros(300, 100), torch.zeros(7), torch.zeros(2, 3, 5)]


def flat(seed: int = 0, count: int = 0, like: Any = LIKE) -> torch.Tensor:
    parts = direction(like, seed, torch.tensor(count))
    return torch.cat(
        [torch.view_as_real(p).flatten() if p.is_complex() else p.flatten() for p in parts]
    )


def test_mean_0_variance_1_and_no_correlation() -> None:
    draws = torch.stack([flat(seed, n) for seed in (0, 1, -3) for n in range(20)]).double()
    n = draws.shape[1]
    assert draws.mean().abs() < 5 / draws.numel() ** 0.5
    assert torch.equal(draws.abs(), torch.ones_like(draws))
    between = draws @ draws.T / n - torch.diag(draws.square().mean(1))
    assert between.abs().max() < 5.5 / n**0.5
    for shift in (1, 2, 8, 64):  # within a draw: neighbours, and the same bit of the next word
        assert (draws[:, shift:] * draws[:, :-shift]).mean().abs() < 5 / draws.numel() ** 0.5


def test_the_signs_are_those_of_splitmix64() -> None:
    """Written down once, so that a run of an earlier version continues with the same numbers."""
    signs = direction([torch.zeros(16, dtype=torch.float64)], 3, torch.tensor(5))[0]
    assert signs.tolist() == SIGNS


def test_a_function_of_seed_and_count_that_leaves_the_generators_alone() -> None:
    before = torch.get_rng_state()
    first = flat(3, 5)
    torch.rand(3)
    assert torch.equal(first, flat(3, 5))
    assert not torch.equal(first, flat(3, 6))
    assert not torch.equal(first, flat(4, 5))
    torch.set_rng_state(before)
    flat(1, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_shapes_dtypes_and_complex_numbers() -> None:
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.float32)
    like = [torch.zeros(3, 2, dtype=dtype) for dtype in dtypes]
    like += [torch.zeros(0), torch.zeros(()), torch.zeros(2, dtype=torch.complex64)]
    parts = direction(like, 0, torch.tensor(0))
    assert [(p.shape, p.dtype) for p in parts] == [(p.shape, p.dtype) for p in like]
    for part in parts:
        real = torch.view_as_real(part) if part.is_complex() else part
        assert torch.equal(real.abs(), torch.ones_like(real))
