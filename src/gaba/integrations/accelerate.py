"""The balancer in a loop with Accelerate: backward pass, trackers and saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._follow import Follower, Sink

with needs("the Accelerate integration needs", "accelerate", "accelerate"):
    from accelerate import Accelerator

__all__ = ["AcceleratedBalancer"]


@final
class AcceleratedBalancer:
    """A Balancer under an Accelerator: its backward pass, its trackers, its checkpoints.

    The Balancer goes to the device of the accelerator and is registered for checkpointing, so
    ``accelerator.save_state`` and ``load_state`` have its state. It is not to be prepared, and not
    to be a part of the model: it has no parameters, and its state is saved on its own.

    Args:
        accelerator: The Accelerator that prepares the model.
        balancer: The Balancer, with ``shared`` a part of the model.
        prefix: What the names of logged scalars begin with.
        sinks: Get every step at each :meth:`log`; on the main process only.

    Example:
        >>> import torch, gaba
        >>> from accelerate import Accelerator
        >>> accelerator = Accelerator(cpu=True)
        >>> net = torch.nn.Linear(2, 2)
        >>> balanced = AcceleratedBalancer(accelerator, gaba.Balancer(["a", "b"], shared=net))
        >>> model = accelerator.prepare(net)
        >>> outputs = model(torch.ones(4, 2)).square().mean(0)
        >>> balanced.backward({"a": 9 * outputs[0], "b": outputs[1]})
        >>> round(balanced.log(step=0)["gaba/imbalance"], 6)
        1.0
    """

    def __init__(
        self,
        accelerator: Accelerator,
        balancer: Balancer,
        prefix: str = "gaba",
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.accelerator = accelerator
        self.balancer: Balancer = balancer.to(accelerator.device)
        accelerator.register_for_checkpointing(balancer)
        self._follower = Follower(balancer, prefix, sinks if accelerator.is_main_process else ())

    def backward(self, losses: Mapping[str, Tensor | None], **kwargs: Any) -> None:
        """Balance ``losses`` and have the accelerator run the backward pass.

        It divides by ``gradient_accumulation_steps``, scales and accumulates as always; weights
        and contributions are of the losses as they come. In float16 the gradient scaler of the
        accelerator serves the measurement too. Give the Balancer ``accumulate=`` the same number of
        steps to hold the weights within a window.

        Args:
            losses: scalars by task name, as for :class:`gaba.Balancer`.
            **kwargs: handed on to ``accelerator.backward``.
        """
        loss = self.balancer(losses, scaler=self.accelerator.scaler)
        self.accelerator.backward(loss, **kwargs)

    def log(self, step: int | None = None) -> dict[str, float]:
        """Log what happened since the last call by ``accelerator.log``, and return it."""
        found = self._follower.look()
        if found:
            self.accelerator.log(found, step=step)
        return found
