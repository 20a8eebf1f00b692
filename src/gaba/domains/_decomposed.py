"""A Q network with one head a reward component, and the loss of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn


class Transitions(NamedTuple):
    """A batch: states and next states (B, D), actions (B,), rewards (B, C), ended (B,) bool."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    ended: Tensor


@final
class DecomposedQ(nn.Module):
    """Q_c(s, a) for each component c: a shared trunk and one linear head a component.

    Args:
        n_inputs: D, the numbers in a state.
        n_actions: A.
        components: The names of the C components.
        hidden: The width of the trunk's two layers.
        head_scale: The first weights of the heads, relative to the usual ones.

    Example:
        >>> import torch
        >>> q = DecomposedQ(2, 4, ["treasure", "time"])
        >>> {name: tuple(values.shape) for name, values in q(torch.zeros(8, 2)).items()}
        {'treasure': (8, 4), 'time': (8, 4)}
    """

    def __init__(
        self,
        n_inputs: int,
        n_actions: int,
        components: Sequence[str],
        hidden: int = 64,
        head_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, n_actions) for name in components})
        with torch.no_grad():
            for weight in self.heads.parameters():
                weight *= head_scale

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """By component (B, A) for states (B, D)."""
        features = self.trunk(states)
        return {name: head(features) for name, head in self.heads.items()}

    def greedy(self, states: Tensor, preference: Tensor) -> Tensor:
        """The actions (B,) of the largest Σ_c u_c Q_c(s, a), for a preference u (C,)."""
        with torch.no_grad():
            values = torch.stack([*self(states).values()], dim=-1)
            return (values @ preference).argmax(-1)


def td_losses(
    q: DecomposedQ, target: DecomposedQ, batch: Transitions, preference: Tensor, gamma: float
) -> dict[str, Tensor]:
    """The loss of each component, L_c = ½ mean_B (r_c + γ Q⁻_c(s', a*) − Q_c(s, a))².

    Q⁻ is the target network, γ the discount, and a* its one action with the largest
    Σ_c u_c Q⁻_c(s', ·). The second term is 0 if the episode has ended. L_c is in the square of the
    component's unit.

    Raises:
        ValueError: The rewards are not (B, C) for the C heads, or one is not finite.

    Example:
        >>> import torch
        >>> q = DecomposedQ(2, 4, ["treasure", "time"])
        >>> batch = Transitions(
        ...     torch.zeros(3, 2), torch.zeros(3).long(), torch.ones(3, 2), torch.zeros(3, 2),
        ...     torch.ones(3).bool(),
        ... )
        >>> sorted(td_losses(q, q, batch, torch.tensor([0.5, 0.5]), gamma=0.99))
        ['time', 'treasure']
    """
    names = [*q.heads]
    if batch.rewards.ndim != 2 or batch.rewards.shape[1] != len(names):
        raise ValueError(
            f"rewards must have shape (B, {len(names)}) for the components {', '.join(names)}, "
            f"found {tuple(batch.rewards.shape)}; give one number a component and step"
        )
    best = target.greedy(batch.next_states, preference)[:, None]
    with torch.no_grad():
        later = target(batch.next_states)
    now = q(batch.states)
    going_on = (~batch.ended).to(batch.rewards.dtype)
    losses: dict[str, Tensor] = {}
    for c, name in enumerate(names):
        aim = batch.rewards[:, c] + gamma * going_on * later[name].gather(1, best)[:, 0]
        found = now[name].gather(1, batch.actions[:, None])[:, 0]
        losses[name] = 0.5 * (aim - found).square().mean()
    return losses


def component_names(env: Any, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the environment's C reward components; "reward 0", ... if none are given.

    Raises:
        ValueError: The environment has no vector of rewards, or there are not C distinct names.

    Example:
        >>> import mo_gymnasium
        >>> component_names(mo_gymnasium.make("four-room-v0"), ["square", "triangle", "circle"])
        ('square', 'triangle', 'circle')
    """
    space = getattr(env.unwrapped, "reward_space", None)
    if space is None or len(space.shape) != 1:
        raise ValueError(
            f"env must have a vector of rewards (reward_space), found {space!r} in {env}; make it "
            "with mo_gymnasium.make"
        )
    found = (
        tuple(names) if names is not None else tuple(f"reward {c}" for c in range(space.shape[0]))
    )
    if len(found) != space.shape[0] or len(set(found)) != len(found):
        raise ValueError(
            f"components must be {space.shape[0]} distinct names for the rewards of {env}, found "
            f"{found}; give one a component"
        )
    return found
