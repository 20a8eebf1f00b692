"""What a Balancer does is recorded as it was, and the record is what the history says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

import gaba
from _models import TwoStage, batch

VECTORS = ("losses", "norms", "multipliers", "weights", "contributions", "saturated", "shares")


def test_the_history_of_a_balancer_holds_its_steps() -> None:
    model = TwoStage([1.0, 50.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    steps = [balancer.backward(model.losses(batch(i))) for i in range(5)]
    history = balancer.history
    assert len(history) == 5
    for name in (*VECTORS, "imbalance"):
        expected = torch.stack([getattr(step, name) for step in steps])
        np.testing.assert_array_equal(getattr(history, name), expected, name)
    np.testing.assert_array_equal(history.steps, range(5))
    assert history.finite.all()
    assert history.about["metric"] == "euclidean"


def test_a_missing_task_and_a_bad_loss_are_told_apart(tmp_path: Path) -> None:
    model = TwoStage([1.0, 50.0, 3.0])
    balancer = gaba.Balancer(model.names, model.trunk, "equal-share", every=2)
    path = tmp_path / "history.jsonl"
    with gaba.RunRecord(path, model.names) as record:
        for i in range(8):
            losses = model.losses(batch(i))
            if i == 2:
                losses["task1"] = None
            if i == 5 and losses["task0"] is not None:
                losses["task0"] = losses["task0"] * math.inf
            record.write(balancer.backward(losses))
    for history in (balancer.history, gaba.History.read(path)):
        assert np.isnan(history.multipliers[2]).tolist() == [False, True, False]
        assert history.weights[2, 1] == 0
        assert history.finite.tolist() == [i != 5 for i in range(8)]
        assert not np.isnan(history.multipliers[5]).any()
        np.testing.assert_array_equal(history.measured, [i % 2 == 0 for i in range(8)])
        assert np.isnan(history.cosines[1::2]).all()
        assert np.isnan(history.cosines[2, 1]).all()
        np.testing.assert_allclose(history.cosines[0].diagonal(), 1)
        np.testing.assert_allclose(history.shares[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(history.cosines, balancer.history.cosines, rtol=1e-12)
    np.testing.assert_allclose(history.shares, balancer.history.shares, rtol=1e-9)
    assert history.about == balancer.history.about
