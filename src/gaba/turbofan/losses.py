"""The two losses of the turbofan network, with the sample weights of AMNL if you ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from torch import Tensor
from torch.nn.functional import cross_entropy

from gaba.turbofan.fleet import RUL_CAP

if TYPE_CHECKING:
    from gaba.turbofan.model import Output

TASKS = ("rul", "health")
"""The tasks, in the order of the weights in ``fixed:W,W``."""


@final
class Batch(NamedTuple):
    """N windows and their labels: ``rul`` in cycles (capped), ``health`` class 0, 1 or 2."""

    inputs: Tensor
    rul: Tensor
    health: Tensor


def sample_weights(rul: Tensor) -> Tensor:
    """AMNL's sample weights 1 + clip(1 − y/125, 0, 1) of labels y in cycles: 2 at failure.

    >>> import torch
    >>> sample_weights(torch.tensor([0.0, 62.5, 125.0, 200.0]))
    tensor([2.0000, 1.5000, 1.0000, 1.0000])
    """
    return 1 + (1 - rul / RUL_CAP).clamp(0, 1)


def losses(
    output: Output, batch: Batch, *, weigh_samples: bool = False, cap: float = RUL_CAP
) -> dict[str, Tensor]:
    """The loss of each task: mean squared error of the RUL, cross-entropy of the health class.

    L_rul = mean w_i (ŷ_i − y_i)², in units of (cap/125)², which for a cap of 125 are cycles
    squared; L_health = mean −log p_i(class i).

    Args:
        output: Of the model: ``rul`` (N,), ``health`` (N, 3) logits.
        batch: The labels.
        weigh_samples: Whether w_i are the :func:`sample_weights` of AMNL instead of 1.
        cap: The largest RUL label, in cycles.

    >>> import torch
    >>> batch = Batch(torch.zeros(2, 30, 17), torch.tensor([125.0, 0.0]), torch.tensor([0, 2]))
    >>> output = {"rul": torch.tensor([122.0, 4.0]), "health": torch.zeros(2, 3)}
    >>> {task: round(loss.item(), 4) for task, loss in losses(output, batch).items()}
    {'rul': 12.5, 'health': 1.0986}
    >>> losses(output, batch, weigh_samples=True)["rul"].item()
    20.5
    """
    parts = RUL_CAP / cap
    squared = ((output["rul"] - batch.rul) * parts).square()
    if weigh_samples:
        squared = squared * sample_weights(batch.rul * parts)
    return {"rul": squared.mean(), "health": cross_entropy(output["health"], batch.health)}
