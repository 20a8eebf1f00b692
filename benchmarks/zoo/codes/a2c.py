"""A2C of stable-baselines3 on CartPole: one gradient step a rollout, nothing normalized."""

from __future__ import annotations

import numpy as np
from codes.ppo import Trunk
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="A2C on CartPole",
    package="stable-baselines3",
    metric="return in the second half",
    better="higher",
    tasks=("policy", "value"),
    fixed=("entropy",),
    why_fixed="An entropy bonus is not to reach its end.",
)
STEPS, WORLDS = 200_000, 16
LOSSES = "{'policy': policy_loss, 'entropy': self.ent_coef * entropy_loss, "
LOSSES += "'value': self.vf_coef * value_loss}"


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean return of the episodes that end in the second half."""
    policy = {"features_extractor_class": Trunk, "net_arch": []}
    world = make_vec_env("CartPole-v1", n_envs=WORLDS, seed=seed)
    model = A2C("MlpPolicy", world, ent_coef=0.01, policy_kwargs=policy, seed=seed)
    balancer = arm.balancer(model.policy.features_extractor)  # +
    balanced = {"loss.backward()": f"balancer.backward({LOSSES})"}
    model.train = arm.change(A2C.train, balanced, balancer=balancer).__get__(model)
    with arm.training():
        model.learn(STEPS)
    ended = [
        returned
        for returns in world.env_method("get_episode_rewards")
        for returned, time in zip(returns, np.cumsum(returns), strict=True)
        if time > STEPS / WORLDS / 2  # a return of CartPole is a time
    ]
    return Outcome(float(np.mean(ended)), model.policy)
