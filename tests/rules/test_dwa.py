"""Dynamic weight average against its formula, epoch by epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _streams import both, led, stream, taken
from gaba.rules import DWA


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 4, 7])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_every_epoch_has_the_weights_of_the_formula(
    n_tasks: int, window: int, temperature: float
) -> None:
    along = stream(n_tasks, steps=5 * window + window // 2, seed=window)
    losses = np.stack([seen.losses.numpy() for seen in along])
    found = led(DWA(temperature, window), along)[0].numpy()
    for step, weights in enumerate(found):
        epoch, wanted = step // window, np.ones(n_tasks)
        if epoch >= 2:
            means = [losses[e * window : (e + 1) * window].mean(0) for e in (epoch - 1, epoch - 2)]
            powers = np.exp(means[0] / means[1] / temperature)
            wanted = n_tasks * powers / powers.sum()
        np.testing.assert_allclose(weights, wanted, rtol=1e-12)


def test_a_task_that_misses_steps_has_longer_epochs_of_its_own() -> None:
    along = stream(2, steps=16)
    flags = [torch.tensor([True, step % 2 == 0]) for step in range(16)]
    weights, _ = led(DWA(window=2), along, flags)
    # those of the second task alone, in the steps in which it is there
    own, _ = led(DWA(window=2), [along[step] for step in range(0, 16, 2)])
    every, _ = led(DWA(window=2), along)
    a, b = every[-2, 0].log() - every[-2, 1].log(), own[-1, 0].log() - own[-1, 1].log()
    assert a != b
    state_all = led(DWA(window=2), [taken(seen, [1]) for seen in along[::2]])[1]
    state_some = led(DWA(window=2), along, flags)[1]
    for name in ("total", "count", "last", "before", "whole"):
        assert getattr(state_some, name)[1] == getattr(state_all, name)[0]
    assert weights[-2].isfinite().all()


def test_a_window_without_loss_has_rate_one() -> None:
    along = [both(x) for x in ([0.0, 1.0], [2.0, 1.0], [1.0, 1.0])]
    weights, _ = led(DWA(window=1), along)
    assert weights[-1].tolist() == [1.0, 1.0]


def test_large_rates_do_not_overflow() -> None:
    along = [both(x) for x in ([1e-9, 1.0], [1e9, 1.0], [1.0, 1.0])]
    weights, _ = led(DWA(temperature=0.01, window=1), along)
    assert weights[-1].tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"temperature": 0.0}, "temperature"), ({"window": 0}, "window"), ({"window": 1.5}, "window")],
)
def test_settings_out_of_range(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DWA(**settings)
