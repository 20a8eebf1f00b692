"""ClipPPOLoss of torchrl on its own Pendulum: actor and critic on one trunk, our loop."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torchrl.envs import PendulumEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ActorValueOperator, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="ClipPPOLoss on Pendulum",
    package="torchrl",
    metric="cost a step",
    better="lower",
    tasks=("objective", "critic"),
    fixed=("entropy",),
    why_fixed="An entropy bonus is not to reach its end.",
)
ROLLOUTS, WORLDS, LENGTH, PASSES, PARTS, WIDTH, RATE = 26, 64, 100, 10, 5, 64, 3e-3


class Trunk(nn.Sequential):
    """The layers that actor and critic share, on the angle and its speed."""

    def forward(self, angle: Tensor, speed: Tensor) -> Tensor:
        return super().forward(torch.stack([angle.cos(), angle.sin(), speed / 8], -1))


def agent(trunk: Trunk) -> ActorValueOperator:
    """The trunk, the policy's head and the value's."""
    hidden = TensorDictModule(trunk, in_keys=["th", "thdot"], out_keys=["hidden"])
    head = nn.Sequential(nn.Linear(WIDTH, 2), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(head, in_keys=["hidden"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -2.0, "high": 2.0},
        return_log_prob=True,
    )
    return ActorValueOperator(hidden, actor, ValueOperator(nn.Linear(WIDTH, 1), ["hidden"]))


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the cost of a step over 200 steps of 256 pendulums, without exploring."""
    torch.manual_seed(seed)
    trunk = Trunk(nn.Linear(3, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    model, world = agent(trunk), PendulumEnv(seed=seed)
    actor, critic = model.get_policy_operator(), model.get_value_operator()
    loss = ClipPPOLoss(actor, critic, entropy_coeff=1e-3, normalize_advantage=True)
    advantage = GAE(gamma=0.9, lmbda=0.95, value_network=critic, shifted=True)
    optimizer = torch.optim.Adam(loss.parameters(), RATE)
    balancer = arm.balancer(trunk)  # +

    @torch.no_grad()
    def played(worlds: int, length: int, how: ExplorationType) -> TensorDict:
        start = world.reset(world.gen_params(batch_size=[worlds]), set_state=False)
        with set_exploration_type(how):
            return world.rollout(length, actor, auto_reset=False, tensordict=start)

    with arm.training():
        for _ in range(ROLLOUTS):
            seen = advantage(played(WORLDS, LENGTH, ExplorationType.RANDOM)).reshape(-1)
            rows = torch.cat([torch.randperm(len(seen)) for _ in range(PASSES)])
            for part in rows.split(len(seen) // PARTS):
                found = loss(seen[part])
                parts = {name: found[f"loss_{name}"] for name in ENTRY.terms}  # +
                optimizer.zero_grad()
                balancer.backward(parts)  # +
                nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()
    reward = played(256, 200, ExplorationType.DETERMINISTIC)["next", "reward"]
    return Outcome(-float(reward.mean()), model)
