"""The balancer in Lightning: a module returns the balanced loss, a callback logs; and in Fabric.

Return ``self.balancer(losses)`` from ``training_step``. Automatic optimization accumulates, clips
and steps as always. The shares are measured at the end of its backward pass, before it clips. Make
the balancer an attribute of the module: the checkpoint then has its state. With
``accumulate_grad_batches=n``, give it ``accumulate=n`` to hold the multipliers within a window;
:class:`BalanceMonitor` warns if you do not. In ``"16-mixed"`` precision see :func:`scaler_of`.

To observe, call ``self.observer(losses)`` in front of your own sum, and leave what it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._accumulation import agrees, warn
from gaba.integrations._logger import HistoryLogger, Sink

with needs("the Lightning integration needs", "lightning", "lightning"):
    from lightning.fabric import Fabric, wrappers
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["BalanceMonitor", "FabricBalancer", "scaler_of"]


@final
class BalanceMonitor(Callback):
    """Logs what the Balancer of a LightningModule saw and did, to the loggers of the Trainer.

    For each task k there are the loss L_k (mean since the last time), norm g_k, multiplier m_k,
    weight λ_k, contribution c_k, share s_k and how often the multiplier was saturated, under
    ``gaba/weights/rul`` and the like; and the imbalance. What was not measured is left out.
    ``callback_metrics`` has the same names. Nothing waits for the device in between. With several
    processes, the first one logs. It begins a window of micro-batches with each epoch, whose last
    window may be cut short; otherwise it changes no training. It warns if the ``accumulate`` of the
    Balancer is not the trainer's ``accumulate_grad_batches``.

    Args:
        every: optimizer steps between two records; ``None`` for the trainer's
            ``log_every_n_steps``.
        name: which submodule the Balancer is; ``None`` if the module has only one.
        prefix: what the names begin with.
        sinks: get every step, such as :class:`gaba.RunRecord`, on the first process only.

    Raises:
        ValueError: ``every`` is less than 1, or, when training starts, the module does not have
            that Balancer.

    Example:
        >>> monitor = BalanceMonitor(every=10)  # Trainer(callbacks=[monitor])
        >>> monitor.prefix
        'gaba'
    """

    def __init__(
        self,
        every: int | None = None,
        name: str | None = None,
        prefix: str = "gaba",
        sinks: Sequence[Sink] = (),
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1, found {every}")
        self.every = every
        self.name = name
        self.prefix = prefix
        self._sinks = tuple(sinks)
        self._logger: HistoryLogger | None = None
        self._logged_at = -1
        self._warned = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the Balancer."""
        sinks = self._sinks if trainer.is_global_zero else ()
        self._logger = HistoryLogger(balancer_of(pl_module, self.name), self.prefix, sinks)
        self._logged_at = trainer.global_step
        self._warned = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a window; warn once if multipliers may change within an optimizer step."""
        assert self._logger is not None
        balancer, steps = self._logger.balancer, trainer.accumulate_grad_batches
        balancer.begin_window()
        if not (self._warned or agrees(balancer, steps)):
            self._warned = True
            warn(balancer, steps, "accumulate_grad_batches")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log if it is time."""
        every = self.every or int(getattr(trainer, "log_every_n_steps"))  # noqa: B009 (set by a part of it)
        now = trainer.global_step
        if self._logger is None or every == 0 or now == self._logged_at or now % every:
            return
        self._logged_at = now
        found = self._logger.collect()
        # directly: Lightning repeats what a module logs with the batches that follow
        pl_module.log_dict(dict(found), on_step=True, on_epoch=False, batch_size=1, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the sinks the remaining steps."""
        if self._logger is not None:
            self._logger.collect()


def balancer_of(module: LightningModule, name: str | None) -> Balancer:
    """The Balancer of ``module`` that is called ``name``, or the only one."""
    found = {n: part for n, part in module.named_modules() if isinstance(part, Balancer)}
    if name is not None and name in found:
        return found[name]
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    raise ValueError(
        f"name={name!r} must name a Balancer of {type(module).__name__}, or be None if it has "
        f"one: it has {sorted(found) or 'none'}; assign self.balancer = gaba.Balancer(...) in "
        "its __init__"
    )


@final
class FabricBalancer:
    """A Balancer in a loop with Fabric: ``fabric.backward`` of the balanced loss, and logs.

    Some strategies and precisions have a backward pass of their own. Fabric then refuses every pass
    that does not come from ``fabric.backward``, also those that measure; here they count as part of
    it. Shares are measured at the end of ``fabric.backward``, before you clip. Accumulation
    (``no_backward_sync``) and clipping stay Fabric's.

    Args:
        fabric: the Fabric that sets the model up.
        balancer: the Balancer, with ``shared`` a part of the model; it moves to the device. Save it
            with ``fabric.save(path, {"model": model, "balancer": balancer, ...})``.
        prefix: what the names of logged scalars begin with.
        sinks: get every step at each :meth:`log`, on the first process only.

    Example:
        >>> import torch, gaba
        >>> from lightning.fabric import Fabric
        >>> fabric = Fabric(accelerator="cpu", devices=1)
        >>> net = torch.nn.Linear(2, 2)
        >>> balanced = FabricBalancer(fabric, gaba.Balancer(["a", "b"], shared=net))
        >>> model = fabric.setup(net)
        >>> outputs = model(torch.ones(4, 2)).square().mean(0)
        >>> balanced.backward({"a": 9 * outputs[0], "b": outputs[1]})
        >>> net.weight.grad is None
        False
    """

    def __init__(
        self,
        fabric: Fabric,
        balancer: Balancer,
        prefix: str = "gaba",
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.fabric = fabric
        self.balancer: Balancer = balancer.to(fabric.device)
        self._logger = HistoryLogger(balancer, prefix, sinks if fabric.is_global_zero else ())

    def backward(self, losses: Mapping[str, Tensor | None], model: Any = None) -> None:
        """Balance ``losses`` and run the backward pass of Fabric.

        Args:
            losses: scalars by task name, as for :class:`gaba.Balancer`.
            model: as for ``fabric.backward``, where several models are set up.
        """
        with _passes_allowed():
            loss = self.balancer(losses, scaler=scaler_of(self.fabric))
        self.fabric.backward(loss, model=model)

    def log(self, step: int | None = None) -> dict[str, float]:
        """Log what happened since the last call by ``fabric.log_dict``, and return it."""
        found = self._logger.collect()
        if found:
            self.fabric.log_dict(found, step=step)
        return found


def scaler_of(owner: Fabric | LightningModule) -> Any:
    """The gradient scaler of a Fabric, or of the Trainer of a module; ``None`` if it has none.

    In ``"16-mixed"`` precision return ``self.balancer(losses, scaler=scaler_of(self))``. Small
    losses are then measured on a scale on which they do not vanish.

    Example:
        >>> from lightning.fabric import Fabric
        >>> scaler_of(Fabric(accelerator="cpu", devices=1)) is None
        True
    """
    if isinstance(owner, Fabric):
        return getattr(owner.strategy.precision, "scaler", None)
    return getattr(owner.trainer.precision_plugin, "scaler", None)


@contextmanager
def _passes_allowed() -> Iterator[None]:
    """Make the hooks of Fabric on the outputs of a model accept a pass as one of its own."""
    before = getattr(wrappers, "_in_fabric_backward", False)
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = before
