"""Random weights: the stream of numbers, and their distribution."""

from __future__ import annotations

import math

import pytest
import torch

from _streams import both, led
from gaba.rules import RLW

_WORD = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15


def mixed(z: int) -> int:
    """The finaliser of SplitMix64 in Python's own integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def normal(seed: int, step: int, task: int) -> float:
    start = (mixed((seed + _STEP) & _WORD) + step * _STEP) & _WORD
    key = mixed((mixed(start) + (2 * task + 1) * _STEP) & _WORD)
    one, two = (((bits >> 11) + 1) / 2**53 for bits in (key, mixed((key + _STEP) & _WORD)))
    return math.sqrt(-2 * math.log(one)) * math.cos(2 * math.pi * two)


def drawn(n_tasks: int, steps: int, seed: int = 0) -> torch.Tensor:
    return led(RLW(seed), [both([1.0] * n_tasks)] * steps)[0]


def test_the_finaliser_is_that_of_the_published_generator() -> None:
    # the first two outputs of SplitMix64 from state 0, as published with the generator
    assert mixed(_STEP) == 0xE220A8397B1DCDAF
    assert mixed(2 * _STEP & _WORD) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("seed", [0, 1, -1, 12345, 2**63 - 1, -(2**63)])
def test_the_numbers_are_those_of_plain_integers(seed: int) -> None:
    for step, weights in enumerate(drawn(5, 20, seed)):
        x = torch.tensor([normal(seed, step, k) for k in range(5)], dtype=torch.float64)
        torch.testing.assert_close(weights, torch.softmax(x, -1), rtol=1e-12, atol=0)


def test_they_are_standard_normal_and_independent() -> None:
    x = torch.log(drawn(400, 100, seed=5))
    x = x - x.mean(1, keepdim=True)  # softmax keeps x but for a constant; 400 hardly feel its loss
    n = x.numel()
    assert abs(float(x.var()) - 1) < 5 * (2 / n) ** 0.5
    for bound, part in ((0.5, 0.38292), (1.0, 0.68269), (2.0, 0.95450), (3.0, 0.99730)):
        assert abs(float((x.abs() < bound).double().mean()) - part) < 0.01
    assert abs(float((x**3).mean())) < 5 * (15 / n) ** 0.5
    for one, two in ((x[:-1], x[1:]), (x[:, :-1], x[:, 1:]), (x[:-1, :-1], x[1:, 1:])):
        together = torch.stack([one.flatten(), two.flatten()])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 5 / n**0.5
    by_task, by_step = x.mean(0), x.var(1)
    assert abs(float(by_task.var()) * 100 - 1) < 0.3  # means of 100 each
    assert float((by_step - 1).abs().max()) < 6 * (2 / 400) ** 0.5


@pytest.mark.parametrize("n_tasks", [2, 10])
def test_every_task_gets_the_same_on_average(n_tasks: int) -> None:
    mean = drawn(n_tasks, 1500).mean(0)
    torch.testing.assert_close(mean, torch.full_like(mean, 1 / n_tasks), rtol=0.12, atol=0)


def test_seeds_differ_and_no_generator_is_touched() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    streams = [drawn(3, 5, seed) for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(s.flatten().tolist()) for s in streams}) == 4


def test_a_task_has_its_own_stream() -> None:
    here = torch.tensor([True, False, True])
    all_of_them = drawn(3, 4)
    some, _ = led(RLW(), [both([1.0] * 3)] * 4, [here] * 4)
    kept = all_of_them[:, here]
    torch.testing.assert_close(some[:, here], kept / kept.sum(1, keepdim=True))
    assert (some[:, ~here] == 0).all()


@pytest.mark.parametrize("seed", [2**63, 1.5, "a"])
def test_settings_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        RLW(seed)
