"""PPO of stable-baselines3 on CartPole: the losses of the policy, the value and the entropy."""

from __future__ import annotations

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="PPO on CartPole",
    package="stable-baselines3",
    metric="return",
    better="higher",
    tasks=("policy", "value"),
    fixed=("entropy",),
    why_fixed="An entropy bonus is not to reach its end.",
)
STEPS = 20_000
LOSSES = "{'policy': policy_loss, 'value': self.vf_coef * value_loss, "
LOSSES += "'entropy': self.ent_coef * entropy_loss}"


class Trunk(BaseFeaturesExtractor):
    """The layers that actor and critic share."""

    def __init__(self, space: object, width: int = 64) -> None:
        super().__init__(space, width)
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean return of 30 episodes."""
    policy = {"features_extractor_class": Trunk, "net_arch": []}
    model = PPO(
        "MlpPolicy", "CartPole-v1", n_steps=512, ent_coef=0.01, policy_kwargs=policy, seed=seed
    )
    balancer = arm.balancer(model.policy.features_extractor)  # +
    balanced = {"loss.backward()": f"balancer.backward({LOSSES})"}
    model.train = arm.change(PPO.train, balanced, balancer=balancer).__get__(model)
    with arm.training():
        model.learn(STEPS)
    returns, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=30, warn=False)
    return Outcome(float(np.mean(returns)), model.policy)
