"""The balancer in the Trainer of Transformers.

The model returns its losses by task under ``"losses"``, beside the usual ``"loss"``. In training
the Trainer gets the balanced loss instead of ``"loss"`` and treats it as always: it divides it by
the number of accumulated batches, unless the model divides by ``num_items_in_batch``. The shares of
a batch are measured at the end of its backward pass, before the Trainer clips. Evaluation stays as
it is.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._logger import HistoryLogger, Sink

with needs("the Transformers integration needs", "transformers", "transformers", "accelerate"):
    from transformers.trainer import Trainer

__all__ = ["BalancedTrainer"]

STATE_FILE = "gaba_balancer.pt"
"""The file in a checkpoint of the Trainer that holds the state of the Balancer."""


class BalancedTrainer(Trainer):
    """A Trainer with a Balancer; also in front of another: ``class Mine(BalancedTrainer, Other)``.

    It logs by task, beside ``loss``: the loss, scaled and averaged as ``loss`` is; norm,
    multiplier, weight, contribution, share and how often the multiplier was saturated; and the
    imbalance. What was not measured is left out.
    Checkpoints include its state.

    Args:
        *args: as for the Trainer.
        balancer: the Balancer, with ``shared`` a part of the model. It must stand beside the model:
            Transformers saves nothing of a model but its tensors.
        prefix: what the names of the logged scalars begin with.
        sinks: get every step, such as :class:`gaba.RunRecord`, on the first process only.
        **kwargs: as for the Trainer.

    Raises:
        ValueError: the balancer is a part of the model, or the Trainer is told to make model or
            loss itself (``model_init``, ``compute_loss_func``, ``label_smoothing_factor``).

    Example:
        Let the forward method return ``{"loss": rul + health, "losses": {"rul": rul, "health":
        health}}`` and make ``balancer = gaba.Balancer(["rul", "health"], shared=model.backbone)``.
        Then ``BalancedTrainer(model, arguments, train_dataset=data, balancer=balancer).train()``.
        The whole program: ``examples/transformers_trainer.py``.
    """

    def __init__(
        self,
        *args: Any,
        balancer: Balancer,
        prefix: str = "gaba",
        sinks: Sequence[Sink] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        made = {
            "model_init": self.model_init is not None,
            "compute_loss_func": self.compute_loss_func is not None,
            "label_smoothing_factor": self.label_smoother is not None,
        }
        if any(made.values()):
            name = next(name for name, given in made.items() if given)
            raise ValueError(
                f"{name} must not be given with a balancer: pass a model that returns its losses "
                "by task"
            )
        model: Any = self.model
        if any(part is balancer for part in model.modules()):
            raise ValueError(
                "balancer must not be a part of the model, of which Transformers saves nothing "
                "but tensors: make it beside the model, with shared=model.backbone"
            )
        self.balancer: Balancer = balancer.to(self.args.device)
        self._gaba_logger = HistoryLogger(
            balancer, prefix, sinks if self.is_world_process_zero() else ()
        )
        self._gaba_now: tuple[Tensor, Tensor] | None = None
        self._gaba_sums: Tensor | None = None
        self._gaba_since = 0

    def task_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor | None]:
        """The losses by task of one training batch; override it if the model has them elsewhere.

        Args:
            outputs: what the model returns.
            inputs: what it gets, including ``num_items_in_batch`` where the Trainer counts.

        Raises:
            ValueError: the outputs have no ``"losses"``.

        Example:
            >>> class Mine(BalancedTrainer):
            ...     def task_losses(self, outputs, inputs):
            ...         return {"rul": outputs.rul_loss, "health": outputs.health_loss}
        """
        found = outputs.get("losses") if isinstance(outputs, Mapping) else None
        if not isinstance(found, Mapping):
            raise ValueError(
                "the model must return its losses by task under 'losses', found "
                f"{sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__}: "
                "return them there, or override task_losses"
            )
        return found

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loss; in training that of the balanced losses."""
        if model.training and torch.is_grad_enabled():
            return super().compute_loss(_Balanced(self, model), inputs, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's step; it adds the losses by task up, scaled as the whole loss is."""
        loss = super().training_step(*args, **kwargs)
        if self._gaba_now is not None:
            (whole, by_task), self._gaba_now = self._gaba_now, None
            if self._gaba_sums is None:
                self._gaba_since = self.state.global_step
            counted = by_task * (loss / whole)
            counted = torch.where(counted.isfinite(), counted, torch.zeros_like(counted))
            self._gaba_sums = counted + (0.0 if self._gaba_sums is None else self._gaba_sums)
        return loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """The Trainer's; ``"losses"`` is no prediction."""
        if ignore_keys is None:
            config = getattr(self.model, "config", None)
            ignore_keys = list(getattr(config, "keys_to_ignore_at_inference", ()))
        return super().prediction_step(
            model, inputs, prediction_loss_only, [*ignore_keys, "losses"]
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's, with the scalars of the balancer beside ``loss``."""
        if "loss" in logs:
            found = self._gaba_logger.collect()
            if found and self._gaba_sums is not None:
                steps = max(self.state.global_step - self._gaba_since, 1)
                sums: Any = self.accelerator.reduce(self._gaba_sums, reduction="mean")
                names = [f"{self._gaba_logger.prefix}/losses/{t}" for t in self.balancer.tasks]
                found.update(zip(names, (sums / steps).tolist(), strict=True))
            self._gaba_sums = None
            logs.update(found)
        elif "train_runtime" in logs:
            self._gaba_logger.collect()
        super().log(logs, *args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.balancer.state_dict(), os.path.join(output_dir, STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, STATE_FILE)
        if os.path.isfile(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.balancer.load_state_dict(state)
        else:
            warnings.warn(
                f"{checkpoint} has no {STATE_FILE}: the balancer starts from scratch", stacklevel=2
            )


@final
class _Balanced:
    """Stands in for the model while the Trainer computes a training loss, and balances it."""

    def __init__(self, trainer: BalancedTrainer, model: nn.Module) -> None:
        self._trainer = trainer
        self._model = model

    def __call__(self, **inputs: Any) -> Any:
        outputs = self._model(**inputs)
        trainer = self._trainer
        losses = trainer.task_losses(outputs, inputs)
        whole = trainer.balancer(losses, scaler=trainer.accelerator.scaler)
        given = (losses.get(task) for task in trainer.balancer.tasks)
        by_task = [torch.zeros_like(whole) if loss is None else loss for loss in given]
        trainer._gaba_now = whole.detach().clone(), torch.stack(by_task).detach()
        if isinstance(outputs, MutableMapping):
            outputs["loss"] = whole
            return outputs
        if isinstance(outputs, tuple):
            return (whole, *outputs[1:])
        raise ValueError(
            f"the model must return a dictionary or a tuple, found {type(outputs).__name__}: "
            'return {"loss": ..., "losses": {...}}'
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
