"""The default along the optimizer's step, without the noise of the batch, and with targets."""

from __future__ import annotations

import pytest
import torch

import gaba
from _models import TwoStage, batch, task_gradients
from gaba import methods, rules
from gaba.measurement import HalfBatch, Tracked

BOUNDS = ("scale", "limit", "recovery", "rise", "excuse_rare", "heads")


@pytest.mark.parametrize("name", ["gaba-optimizer", "gaba-half", "gaba-initial"])
def test_a_variant_has_the_bounds_of_the_default(name: str) -> None:
    default, variant = methods.get("gaba", ["a", "kl"]), methods.get(name, ["a", "kl"])
    assert all(getattr(variant, slot) == getattr(default, slot) for slot in BOUNDS)
    assert variant.spared == (1,)
    assert methods.get(name, limit=5.0).limit == 5.0


def test_each_differs_from_the_default_in_what_its_name_says() -> None:
    assert methods.get("gaba-optimizer").metric == "optimizer"
    assert methods.get("gaba-optimizer").replace(metric="euclidean") == methods.get("gaba")
    assert isinstance(methods.get("gaba-half").measure, HalfBatch)
    assert isinstance(methods.get("gaba-initial").measure, Tracked)
    assert methods.get("gaba-initial").rule == rules.InitialTargets()


def test_shares_come_to_the_parts_that_the_losses_had_at_first() -> None:
    """Gradients at right angles: a share is the square of a contribution."""
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b", "c"], [w], methods.get("gaba-initial", every=1))
    first = torch.tensor([6.0, 3.0, 1.0])
    shares = torch.zeros(3)
    for n in range(80):
        now = first if n == 0 else torch.ones(3)  # only the first losses count
        pulls = (torch.tensor([2.0, 0.5, 1.0]) * (w - w.detach())).to(w)
        shares = balancer.backward(dict(zip("abc", now + pulls, strict=True))).shares
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], rel=1e-3)


def test_initial_targets_are_share_targets_of_the_first_losses() -> None:
    model, x = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64), batch(dtype=torch.float64)
    losses = {k: float(v.detach()) for k, v in model.losses(x).items() if v is not None}
    given = gaba.Balancer(model.names, model.trunk, share_targets=losses, every=1)
    found = gaba.Balancer(model.names, model.trunk, methods.get("gaba-initial", every=1))
    for _ in range(5):
        expected = given.backward(model.losses(x)).multipliers
        torch.testing.assert_close(found.backward(model.losses(x)).multipliers, expected)


def test_a_task_without_a_first_loss_has_the_mean_target_and_a_loss_of_zero_is_refused() -> None:
    rule, nan = rules.InitialTargets(), torch.nan
    norms = torch.ones(3, dtype=torch.float64)
    seen = rules.Seen(torch.tensor([4.0, 2.0, nan]).double(), norms)
    m, state = rule.update(seen, rule.init(3))
    assert (m**2 / (m**2).sum()).tolist() == pytest.approx([4 / 9, 2 / 9, 3 / 9])
    again, _ = rule.update(rules.Seen(torch.tensor([nan, nan, 1.0]).double(), norms), state)
    assert (again**2 / (again**2).sum()).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    w = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["a", "b"], [w], "gaba-initial")
    with pytest.raises(ValueError, match="above 0 in its first step"):
        balancer.backward({"a": w[0], "b": 0 * w[1]})


def test_half_batches_take_the_noise_out_of_the_default() -> None:
    """Two tasks of one expected gradient, one of them with noise: equal in the end."""
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    balancer = gaba.Balancer(["calm", "noisy"], [w], "gaba-half")
    plain = []
    for _ in range(150):
        noise = torch.randn(2, 50, generator=generator, dtype=torch.float64)
        calm = torch.stack([w.mean(), w.mean()]) * 50  # its gradient is a vector of ones
        balancer.backward({"calm": calm, "noisy": calm + noise @ w})
        plain.append((1 + noise.mean(0)).norm() / 50**0.5)
    ratio = balancer.multipliers["noisy"] / balancer.multipliers["calm"]
    assert ratio == pytest.approx(1.0, abs=0.05)
    assert 1 / float(torch.stack(plain).mean()) < 0.85  # by norms that hold the noise


def test_along_the_steps_of_an_optimizer_their_parts_of_its_steps_are_equal() -> None:
    """Of Adam, whose steps are not along the gradient: ⟨m ∇L, d⟩ by plain passes of its own."""
    model, x = TwoStage((1.0, 30.0), dtype=torch.float64), batch(n=64, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    balancer = gaba.Balancer(
        model.names, model.trunk, methods.get("gaba-optimizer", every=1), optimizer=optimizer
    )
    parts = []
    for n in range(120):
        optimizer.zero_grad()
        balancer.backward(model.losses(x))
        before = torch.cat([p.detach().flatten() for p in model.trunk.parameters()])
        optimizer.step()
        after = torch.cat([p.detach().flatten() for p in model.trunk.parameters()])
        if n >= 100:
            m = torch.tensor([balancer.multipliers[name] for name in model.names]).double()
            parts.append(m * (torch.stack(task_gradients(model, x)) @ (before - after)))
    mean = torch.stack(parts).mean(0)
    assert float(mean.min()) > 0
    assert float(mean.max() / mean.min()) < 1.5
