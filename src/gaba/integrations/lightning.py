"""The balancer in Lightning: what a module returns, what a callback logs; and in Fabric.

Automatic optimization stays as it is: ``training_step`` returns ``self.balancer(losses)``, the
weighted scalar, and Lightning goes on to accumulate, clip and step. The balancer is an attribute of
the module, so its state is in the checkpoint and on the device of the module. With
``accumulate_grad_batches=n``, give it ``accumulate=n`` to hold the weights within a window; in
``"16-mixed"`` precision see :func:`scaler_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._follow import Follower, Sink

with needs("the Lightning integration needs", "lightning", "lightning"):
    from lightning.fabric import Fabric, wrappers
    from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["BalanceMonitor", "FabricBalancer", "scaler_of"]


@final
class BalanceMonitor(Callback):
    """Logs what the Balancer of a LightningModule saw and did, to the loggers of the Trainer.

    Every so many optimizer steps: for each task k the loss L_k (mean since the last time), norm
    g_k, weight λ_k, contribution c_k and how often its weight was saturated, and the gain and the
    imbalance, under ``gaba/weights/rul`` and the like. In between nothing waits for the device.
    With several processes it is what the first one saw. The same names are in ``callback_metrics``.

    Args:
        every: Optimizer steps between two records; ``None`` for the trainer's
            ``log_every_n_steps``.
        name: Which submodule the Balancer is; ``None`` if the module has but one.
        prefix: What the names begin with.
        sinks: Get every step, such as :class:`gaba.RunRecord`; on the first process only.

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
        self._follower: Follower | None = None
        self._logged_at = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the Balancer."""
        sinks = self._sinks if trainer.is_global_zero else ()
        self._follower = Follower(balancer_of(pl_module, self.name), self.prefix, sinks)
        self._logged_at = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, if it is time."""
        every = self.every or int(getattr(trainer, "log_every_n_steps"))  # noqa: B009 (set by a part of it)
        now = trainer.global_step
        if self._follower is None or every == 0 or now == self._logged_at or now % every:
            return
        self._logged_at = now
        found = self._follower.look()
        # by itself: what is logged through the module is logged again with the batches that follow
        pl_module.log_dict(dict(found), on_step=True, on_epoch=False, batch_size=1, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the sinks what is left."""
        if self._follower is not None:
            self._follower.look()


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
    """A Balancer in a loop with Fabric: ``fabric.backward`` of the weighted scalar, and logs.

    Where a strategy or precision has a backward pass of its own, Fabric refuses every pass that
    does not come from ``fabric.backward``, and so the passes that measure; here they count as
    part of it. Accumulation (``no_backward_sync``) and clipping stay Fabric's.

    Args:
        fabric: The Fabric that set the model up.
        balancer: The Balancer, with ``shared`` a part of the model; moved to the device. Save it
            with ``fabric.save(path, {"model": model, "balancer": balancer, ...})``.
        prefix: What the names of logged scalars begin with.
        sinks: Get every step at each :meth:`log`; on the first process only.

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
        self._follower = Follower(balancer, prefix, sinks if fabric.is_global_zero else ())

    def backward(self, losses: Mapping[str, Tensor | None], model: Any = None) -> None:
        """Balance ``losses`` and have Fabric run the backward pass.

        Args:
            losses: scalars by task name, as for :class:`gaba.Balancer`.
            model: what ``fabric.backward`` wants to know where several models were set up.
        """
        with _passes_allowed():
            loss = self.balancer(losses, scaler=scaler_of(self.fabric))
        self.fabric.backward(loss, model=model)

    def log(self, step: int | None = None) -> dict[str, float]:
        """Log what happened since the last call by ``fabric.log_dict``, and return it."""
        found = self._follower.look()
        if found:
            self.fabric.log_dict(found, step=step)
        return found


def scaler_of(owner: Fabric | LightningModule) -> Any:
    """The gradient scaler of a Fabric, or of the Trainer of a module; ``None`` if it has none.

    In ``"16-mixed"`` precision a module returns ``self.balancer(losses, scaler=scaler_of(self))``,
    so that small losses are measured on the scale on which they do not vanish.

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
    """Let Fabric's hooks on the outputs of a model take a pass for one of its own."""
    before = getattr(wrappers, "_in_fabric_backward", False)
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = before
