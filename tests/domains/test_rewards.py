"""A decomposed Q network: its losses by hand, equal pulls on the trunk, refused environments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import mo_gymnasium
import numpy as np
import pytest
import torch
from mo_gymnasium.wrappers.wrappers import MORecordEpisodeStatistics

import gaba
from gaba.domains.rewards import (
    DecomposedQ,
    Settings,
    Transitions,
    component_names,
    td_losses,
    train,
)
from gaba.rules import InverseNorm, Targets

NAMES = ("treasure", "time")
EQUAL = {"treasure": 0.5, "time": 0.5}
SHORT = Settings(steps=120, start=60)


@pytest.fixture
def sea() -> Iterator[Any]:
    with pytest.warns(UserWarning, match="precision lowered"):
        env = mo_gymnasium.make("deep-sea-treasure-v0")  # pyright: ignore[reportPrivateImportUsage]
    yield env
    env.close()


def batch_of(n: int = 6, components: int = 2, seed: int = 0) -> Transitions:
    torch.manual_seed(seed)
    ended = torch.arange(n) % 3 == 0
    actions = torch.randint(4, (n,))
    return Transitions(
        torch.randn(n, 2), actions, torch.randn(n, components), torch.randn(n, 2), ended
    )


def test_losses_are_those_of_the_bellman_equation_with_one_joint_action() -> None:
    torch.manual_seed(1)
    q, target = DecomposedQ(2, 4, NAMES), DecomposedQ(2, 4, NAMES)
    batch, u, gamma = batch_of(), torch.tensor([0.3, 0.7]), 0.9
    found = td_losses(q, target, batch, u, gamma)
    with torch.no_grad():
        for c, name in enumerate(NAMES):
            errors = []
            for i in range(6):
                later = {n: v[0] for n, v in target(batch.next_states[i : i + 1]).items()}
                totals = [
                    sum(float(u[k] * later[n][a]) for k, n in enumerate(NAMES)) for a in range(4)
                ]
                best = totals.index(max(totals))
                going_on = 0.0 if batch.ended[i] else float(later[name][best])
                now = float(q(batch.states[i : i + 1])[name][0, batch.actions[i]])
                errors.append(float(batch.rewards[i, c]) + gamma * going_on - now)
            assert found[name].item() == pytest.approx(0.5 * np.mean(np.square(errors)), rel=1e-4)


def test_the_target_gets_no_gradient_and_each_head_only_its_own() -> None:
    q, target = DecomposedQ(2, 4, NAMES), DecomposedQ(2, 4, NAMES)
    losses = td_losses(q, target, batch_of(), torch.tensor([0.5, 0.5]), 0.99)
    losses["treasure"].backward()
    assert all(p.grad is None for p in target.parameters())
    assert all(p.grad is not None for p in q.trunk.parameters())
    assert all(p.grad is not None for p in q.heads["treasure"].parameters())
    assert all(p.grad is None for p in q.heads["time"].parameters())


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_balanced_contributions_on_the_trunk_do_not_depend_on_a_components_unit(
    unit: float,
) -> None:
    torch.manual_seed(2)
    q, target = DecomposedQ(2, 4, NAMES), DecomposedQ(2, 4, NAMES)
    batch = batch_of()
    losses = td_losses(q, target, batch, torch.tensor([0.5, 0.5]), 0.99)
    losses["treasure"] = unit**2 * losses["treasure"]  # as if that reward had another unit
    step = gaba.Balancer(NAMES, q.trunk, "inverse", limit=None).backward(losses)
    assert float(step.imbalance) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "apart"),
    [
        (gaba.methods.get("gaba", every=1, rise=None, limit=None), 1.0),
        (gaba.Method(InverseNorm(power=0)), None),
        (gaba.Method(Targets((1, 5))), 5.0),
    ],
)
def test_a_run_records_what_each_component_pulls(sea: Any, method: Any, apart: Any) -> None:
    run = train(sea, EQUAL, settings=SHORT, method=method)
    history = run.history
    assert history.norms.shape == ((120 - 60) // 2, 2)
    assert np.isfinite(history.norms).all()
    assert run.returns.shape[1:] == run.greedy.shape == run.foretold.shape == (2,)
    assert (run.returns[:, 1] < 0).all()
    first = history.contributions[0]
    if apart is None:
        np.testing.assert_allclose(history.multipliers, 1)
    else:
        assert first[1] / first[0] == pytest.approx(apart, rel=1e-5)


def test_the_same_seed_gives_the_same_run(sea: Any) -> None:
    one, other = (train(sea, EQUAL, settings=SHORT) for _ in range(2))
    np.testing.assert_array_equal(one.returns, other.returns)
    np.testing.assert_array_equal(one.history.norms, other.history.norms)


def test_returns_are_those_of_mo_gymnasiums_statistics(sea: Any) -> None:
    watched = MORecordEpisodeStatistics(sea, gamma=SHORT.gamma, buffer_length=1000)
    run = train(watched, EQUAL, settings=SHORT)
    told = np.array(watched.return_queue)
    np.testing.assert_allclose(np.vstack([run.returns, run.greedy]), told, rtol=1e-6)
    np.testing.assert_allclose(run.discounted, watched.disc_episode_returns, rtol=1e-6)


class Corridor(gymnasium.Env[Any, Any]):
    """Six cells; "there" pays 1 at the right end, "toll" is -1 a step."""

    def __init__(self, toll: float = -1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 5.0, (1,))
        self.action_space: Any = gymnasium.spaces.Discrete(2)
        self.reward_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        self._toll, self._at, self._steps = toll, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._at = self._steps = 0
        return np.array([0.0], dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self._at = min(5, max(0, self._at + (1 if action else -1)))
        self._steps += 1
        there = self._at == 5
        reward = np.array([float(there), self._toll])
        over = self._steps >= 30
        return np.array([self._at], dtype=np.float32), reward, there, over, {}


def test_an_agent_learns_the_shortest_way_and_what_each_component_returns() -> None:
    settings = Settings(steps=1200, gamma=0.9, hidden=32, start=100, sync=50)
    run = train(Corridor(), {"there": 1.0, "toll": 0.2}, settings=settings)
    np.testing.assert_allclose(run.greedy, [1, -5])
    expected = np.array([0.9**4, -(1 - 0.9**5) / (1 - 0.9)])
    np.testing.assert_allclose(run.discounted, expected)
    np.testing.assert_allclose(run.foretold, expected, atol=0.6)


def test_a_reward_that_is_not_a_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be finite, found {'there': 0.0, 'toll': nan}"):
        train(Corridor(toll=float("nan")), {"there": 1.0, "toll": 1.0}, settings=SHORT)


def test_other_environments_are_refused_in_one_line(sea: Any) -> None:
    with pytest.raises(ValueError, match=r"vector of rewards .* mo_gymnasium\.make"):
        component_names(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match="2 distinct names"):
        component_names(sea, ["only one"])
    with pytest.raises(ValueError, match="2 distinct names"):
        component_names(sea, ["twice", "twice"])
    assert component_names(sea) == ("reward 0", "reward 1")
    corridor = Corridor()
    corridor.action_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    with pytest.raises(ValueError, match="finite number of actions"):
        train(corridor, {"there": 1.0, "toll": 1.0})


def test_rewards_of_another_shape_are_refused() -> None:
    q = DecomposedQ(2, 4, NAMES)
    with pytest.raises(ValueError, match=r"\(B, 2\) for the components treasure, time"):
        td_losses(q, q, batch_of(components=3), torch.tensor([0.5, 0.5]), 0.99)
