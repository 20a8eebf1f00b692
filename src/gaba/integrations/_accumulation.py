"""Whether a Balancer knows how many micro-batches its framework adds up in one step."""

from __future__ import annotations

import warnings

from gaba import Balancer


def agrees(balancer: Balancer, steps: int) -> bool:
    """Whether the multipliers stay the same within a step of ``steps`` micro-batches."""
    return balancer.method.observes or balancer.accumulate == steps


def warn(balancer: Balancer, steps: int, setting: str, owner: str = "trainer") -> None:
    """Say what does not fit, and what to do."""
    warnings.warn(
        f"accumulate must be the {setting} of the {owner}, {steps}, found {balancer.accumulate}: "
        "the multipliers change within a step of the optimizer, or stay for too long; make the "
        f"Balancer with accumulate={steps}",
        stacklevel=3,
    )


def follow(balancer: Balancer, steps: int, owner: str = "trainer") -> None:
    """Let ``balancer`` keep its multipliers for ``steps`` micro-batches, unless told otherwise."""
    if agrees(balancer, steps):
        return
    if balancer.accumulate == 1:
        balancer.accumulate = steps
    else:
        warn(balancer, steps, "gradient_accumulation_steps", owner)
