"""The balancer in a loop with Accelerate: backward pass, trackers and saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._accumulation import follow
from gaba.integrations._logger import HistoryLogger, Sink

with needs("the Accelerate integration needs", "accelerate", "accelerate"):
    from accelerate import Accelerator

__all__ = ["AcceleratedBalancer"]


@final
class AcceleratedBalancer:
    """A Balancer under an Accelerator: its backward pass, its trackers, its checkpoints.

    The Balancer moves to the device of the accelerator. ``accelerator.save_state`` and
    ``load_state`` include its state. Do not prepare it, and keep it outside of the model.

    Args:
        accelerator: the Accelerator that prepares the model.
        balancer: the Balancer, with ``shared`` a part of the model. An ``accumulate`` of 1 becomes
            ``gradient_accumulation_steps``; another one is warned of.
        prefix: what the names of logged scalars begin with.
        sinks: get every step at each :meth:`log`, on the main process only.

    Example:
        >>> import torch, gaba
        >>> from accelerate import Accelerator
        >>> accelerator = Accelerator(cpu=True)
        >>> net = torch.nn.Linear(2, 2)
        >>> balancer = gaba.Balancer(["a", "b"], shared=net, method="inverse")
        >>> balanced = AcceleratedBalancer(accelerator, balancer)
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
        follow(self.balancer, accelerator.gradient_accumulation_steps, "accelerator")
        self._ended = True
        accelerator.register_for_checkpointing(balancer)
        self._logger = HistoryLogger(balancer, prefix, sinks if accelerator.is_main_process else ())

    def backward(self, losses: Mapping[str, Tensor | None], **kwargs: Any) -> None:
        """Balance ``losses`` and run the backward pass of the accelerator.

        The accelerator divides by ``gradient_accumulation_steps``, scales and accumulates as
        always; norms, contributions and shares are those of the losses as you give them. Shares are
        measured at the end of this pass, before you clip. Its gradient scaler serves the
        measurement too. The multipliers stay the same until the accelerator syncs the gradients.

        Args:
            losses: scalars by task name, as for :class:`gaba.Balancer`.
            **kwargs: passed to ``accelerator.backward``.
        """
        if self._ended:  # an epoch may end within a window
            self.balancer.begin_window()
        self._ended = self.accelerator.sync_gradients
        loss = self.balancer(losses, scaler=self.accelerator.scaler)
        self.accelerator.backward(loss, **kwargs)

    def log(self, step: int | None = None) -> dict[str, float]:
        """Log what happened since the last call by ``accelerator.log``, and return it."""
        found = self._logger.collect()
        if found:
            self.accelerator.log(found, step=step)
        return found
