"""Several reward components: a Q network with one head a component, balanced on its shared trunk.

The temporal-difference losses pull equally hard on the trunk, m_c ‖∇_trunk L_c‖, whatever the unit
of a component. How much a component matters to the agent is the preference u, which chooses the
actions. Environments are those of mo-gymnasium, whose rewards are vectors.

Source: one head a component and a joint greedy action, van Seijen et al. 2017 (hybrid reward
architecture) and Juozapaitis et al. 2019 (reward decomposition).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

import gaba
from gaba.domains._decomposed import DecomposedQ, Transitions, component_names, td_losses

__all__ = ["DecomposedQ", "Run", "Settings", "Transitions", "component_names", "td_losses", "train"]


@final
@dataclass(frozen=True)
class Settings:
    """How the agent learns; the defaults are for small environments on a CPU.

    Attributes:
        steps: Steps in the environment.
        gamma: The discount.
        lr: Of Adam.
        batch: Transitions an update.
        hidden: Width of the trunk.
        head_scale: The first weights of the heads, relative to the usual ones.
        start: Random steps before the first update.
        every: Steps in the environment an update.
        sync: Updates between two copies of the target network.
        explore: The part of the steps over which ε falls from 1 to ``epsilon``.
        epsilon: The final part of random actions.
        seed: Of everything.
    """

    steps: int = 8000
    gamma: float = 0.99
    lr: float = 1e-3
    batch: int = 32
    hidden: int = 64
    head_scale: float = 1.0
    start: int = 200
    every: int = 2
    sync: int = 200
    explore: float = 0.5
    epsilon: float = 0.05
    seed: int = 0


@final
@dataclass(frozen=True, eq=False)
class Run:
    """The result of :func:`train`.

    Attributes:
        components: The C names.
        q: The network.
        returns: (episodes, C), undiscounted, while learning.
        greedy: (C,), undiscounted, of one episode without exploration at the end.
        discounted: (C,), the same episode, discounted.
        foretold: (C,), the network's prediction of it at its start, Q_c(s_0, a).
        history: Losses, norms, multipliers and contributions of every update.
    """

    components: tuple[str, ...]
    q: DecomposedQ
    returns: NDArray[np.float64]
    greedy: NDArray[np.float64]
    discounted: NDArray[np.float64]
    foretold: NDArray[np.float64]
    history: gaba.History


def train(
    env: Any,
    preference: Mapping[str, float],
    *,
    settings: Settings | None = None,
    method: gaba.Method | str = "gaba",
) -> Run:
    """Learn Q_c of the policy that is greedy in Σ_c u_c Q_c, with losses balanced on the trunk.

    Args:
        env: Of mo-gymnasium, with a box of states and a finite number of actions.
        preference: u_c by component, in the order of the environment's rewards.
        settings: How to learn.
        method: Balances the losses of the components, as in :class:`gaba.Balancer`.

    Raises:
        ValueError: The environment is of another kind, the preference does not fit its rewards, or
            a reward is not finite.

    Example:
        >>> import mo_gymnasium
        >>> wants = {"square": 0.2, "triangle": 0.3, "circle": 0.5}
        >>> run = train(mo_gymnasium.make("four-room-v0"), wants, settings=Settings(steps=210))
        >>> run.history.weights.shape, run.greedy.shape
        ((5, 3), (3,))
    """
    settings = settings or Settings()
    learner = _Learner(env, preference, settings, method)
    returns: list[NDArray[np.float64]] = []
    state, total = learner.reset(settings.seed), np.zeros(len(learner.components))
    for step in range(settings.steps):
        state, reward, over = learner.act(state, learner.epsilon(step))
        total += reward
        if over:
            returns.append(total)
            state, total = learner.reset(), np.zeros_like(total)
        if step >= settings.start and step % settings.every == 0:
            learner.update()
    greedy, discounted, foretold = learner.episode()
    rows = np.array(returns).reshape(len(returns), len(learner.components))
    history = learner.balancer.history
    return Run(learner.components, learner.q, rows, greedy, discounted, foretold, history)


@final
class _Learner:
    """The network, what it has seen, and the environment."""

    def __init__(
        self,
        env: Any,
        preference: Mapping[str, float],
        settings: Settings,
        method: gaba.Method | str,
    ) -> None:
        self.components = component_names(env, [*preference])
        if not hasattr(env.action_space, "n") or len(env.observation_space.shape or ()) != 1:
            raise ValueError(
                "env must have a finite number of actions and a vector of states, found "
                f"{env.action_space} and {env.observation_space}; flatten the state first"
            )
        self.env, self.settings = env, settings
        self.preference = torch.tensor([*preference.values()], dtype=torch.float32)
        torch.manual_seed(settings.seed)
        self._draw = np.random.default_rng(settings.seed)
        size = env.observation_space.shape[0]
        self.q = DecomposedQ(
            size, int(env.action_space.n), self.components, settings.hidden, settings.head_scale
        )
        self._target = deepcopy(self.q)
        self._optimizer = torch.optim.Adam(self.q.parameters(), lr=settings.lr)
        self.balancer = gaba.Balancer(self.components, self.q.trunk, method)
        shapes = ((size,), (), (len(self.components),), (size,), ())
        kinds = (np.float32, np.int64, np.float32, np.float32, np.bool_)
        self._memory = [
            np.zeros((settings.steps, *shape), kind)
            for shape, kind in zip(shapes, kinds, strict=True)
        ]
        self._seen = 0

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        return self._scaled(self.env.reset(seed=seed)[0])

    def _scaled(self, state: Any) -> NDArray[np.float32]:
        """Bounded coordinates to -1 … 1; others as they are."""
        space = self.env.observation_space
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
        low, width = np.where(bounded, low, 0.0), np.where(bounded, high - low, 1.0)
        scaled = 2 * (np.asarray(state, dtype=np.float64) - low) / width - 1
        return np.where(bounded, scaled, state).astype(np.float32)

    def epsilon(self, step: int) -> float:
        done = step / max(1.0, self.settings.explore * self.settings.steps)
        return max(self.settings.epsilon, 1 - done * (1 - self.settings.epsilon))

    def _choose(self, state: NDArray[np.float32], epsilon: float) -> int:
        if self._draw.random() < epsilon:
            return int(self._draw.integers(self.env.action_space.n))
        return int(self.q.greedy(torch.from_numpy(state)[None], self.preference))

    def _move(self, action: int) -> tuple[NDArray[np.float32], NDArray[np.float64], bool, bool]:
        state, reward, ended, cut, _ = self.env.step(action)
        found = np.asarray(reward, dtype=np.float64)
        if not np.isfinite(found).all():
            named = dict(zip(self.components, found.tolist(), strict=True))
            raise ValueError(f"rewards must be finite, found {named}; fix the environment")
        return self._scaled(state), found, bool(ended), bool(cut)

    def act(
        self, state: NDArray[np.float32], epsilon: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], bool]:
        action = self._choose(state, epsilon)
        new, reward, ended, cut = self._move(action)
        for column, value in zip(self._memory, (state, action, reward, new, ended), strict=True):
            column[self._seen] = value
        self._seen += 1
        return new, reward, ended or cut

    def update(self) -> None:
        if len(self.balancer.history) % self.settings.sync == 0:
            self._target.load_state_dict(self.q.state_dict())
        rows = self._draw.integers(self._seen, size=self.settings.batch)
        batch = Transitions(*(torch.from_numpy(column[rows]) for column in self._memory))
        losses = td_losses(self.q, self._target, batch, self.preference, self.settings.gamma)
        self.balancer.backward(losses)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def episode(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """One episode without exploration (C,): returns, discounted returns, and as foretold."""
        state, over, rewards = self.reset(self.settings.seed), False, []
        with torch.no_grad():
            values = self.q(torch.from_numpy(state)[None])
        first = self._choose(state, 0.0)
        foretold = [float(value[0, first]) for value in values.values()]
        while not over:
            state, reward, ended, cut = self._move(self._choose(state, 0.0))
            rewards.append(reward)
            over = ended or cut
        found = np.array(rewards, dtype=np.float64)
        discounted = (self.settings.gamma ** np.arange(len(found)))[:, None] * found
        return found.sum(0), discounted.sum(0), np.array(foretold)
