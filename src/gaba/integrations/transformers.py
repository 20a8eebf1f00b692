"""The balancer and the observer in the Trainer of Transformers.

The model returns its losses by task under ``"losses"``, beside the usual ``"loss"``. In training
a :class:`BalancedTrainer` gets the balanced loss instead of ``"loss"`` and treats it as always: it
divides it by the number of accumulated batches, unless the model divides by
``num_items_in_batch``. The shares of a batch are measured at the end of its backward pass, before
the Trainer clips. Evaluation stays as it is. An :class:`ObserverCallback` only watches, in any
Trainer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from gaba import Balancer
from gaba.extras import needs
from gaba.integrations._accumulation import follow
from gaba.integrations._logger import HistoryLogger, Sink

with needs("the Transformers integration needs", "transformers", "transformers", "accelerate"):
    from transformers.trainer import Trainer
    from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from transformers.training_args import TrainingArguments

__all__ = ["BalancedTrainer", "ObserverCallback"]

STATE_FILE = "gaba_balancer.pt"
"""The file in a checkpoint of the Trainer that holds the state of the Balancer."""

SAME = 0.02
"""Two losses that differ by less than this part are the same: bfloat16 rounds by up to 0.004."""


class BalancedTrainer(Trainer):
    """A Trainer with a Balancer; also in front of another: ``class Mine(BalancedTrainer, Other)``.

    It logs by task, beside ``loss``: the loss, scaled and averaged as ``loss`` is; norm,
    multiplier, weight, contribution, share and how often the multiplier was saturated; and the
    imbalance. What was not measured is left out.
    Checkpoints include its state.

    Args:
        *args: as for the Trainer.
        balancer: the Balancer, with ``shared`` a part of the model. It must stand beside the model:
            Transformers saves nothing of a model but its tensors. An ``accumulate`` of 1 becomes
            ``gradient_accumulation_steps``.
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
        self.add_callback(_Windows(self.balancer))
        follow(balancer, self.args.gradient_accumulation_steps)
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
        return _losses_in(outputs, "losses", "override task_losses")

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
        if not _restored(self.balancer, checkpoint):
            warnings.warn(
                f"{checkpoint} has no {STATE_FILE}: the balancer starts from scratch", stacklevel=2
            )


@final
class _Windows(TrainerCallback):
    """Begins a window with each optimizer step: the last one of an epoch is shorter."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """The next micro-batch is the first of its step."""
        self._balancer.begin_window()


@final
class ObserverCallback(TrainerCallback):
    """Tells of any Trainer whether one loss dominates, and changes no bit of the training.

    In each training batch it reads the losses by task from what the model returns, and the Observer
    measures them. The scalars are in the training logs. Callbacks that stand behind it get them
    too; those of ``report_to`` stand in front, so name yours after this one.

    Losses are measured as the model returns them: before the Trainer divides by
    ``gradient_accumulation_steps``, averaged over the processes. Under fp16 the backward passes
    that measure use the scale of the Trainer, so that small losses do not vanish, and the norms are
    told without it. A step that overflows is recorded as not finite.

    Args:
        observer: a :func:`gaba.Observer`, with ``shared`` a part of the model and beside it.
        losses: the entry of the model's output that has the losses by task, such as
            ``"loss_dict"``; or a function of the output. Their sum must be ``loss``: see there.
        prefix: what the names of the scalars begin with.
        sinks: get every step, such as :class:`gaba.RunRecord`, on the first process only.

    Raises:
        ValueError: ``observer`` balances; or, in training, it is a part of the model, several
            devices are in one process, or the output has no losses by task.

    Example:
        DETR multiplies its losses before it adds them up, so give them as they enter the sum:

        >>> weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
        >>> def terms(output):
        ...     return {name: w * output.loss_dict[name] for name, w in weights.items()}

        ``Trainer(..., callbacks=[ObserverCallback(gaba.Observer(weights, "auto"), terms)])``
    """

    def __init__(
        self,
        observer: Balancer,
        losses: str | Callable[[Any], Mapping[str, Tensor | None]] = "losses",
        prefix: str = "gaba",
        sinks: Sequence[Sink] = (),
    ) -> None:
        if not observer.method.observes:
            raise ValueError(
                f"observer must only observe, found a Balancer that balances by "
                f"{type(observer.method.rule).__name__}: use gaba.Observer, or BalancedTrainer"
            )
        self.observer = observer
        self.losses = losses
        self.prefix = prefix
        self._sinks = tuple(sinks)
        self._logger: HistoryLogger | None = None
        self._hook: Any = None
        self._scaler: torch.amp.GradScaler | None = None
        self._compared = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look at what the model returns from now on; resume where a checkpoint was."""
        self._remove_hook()
        assert model is not None
        if any(part is self.observer for part in model.modules()):
            raise ValueError(
                "observer must not be a part of the model, of which Transformers saves nothing "
                "but tensors: make it beside the model, with shared=model.backbone"
            )
        if args.n_gpu > 1:
            raise ValueError(
                f"each device must have a process of its own, found {args.n_gpu} devices in one: "
                "start with torchrun, or choose a device by CUDA_VISIBLE_DEVICES"
            )
        self.observer.to(args.device)
        if state.global_step:
            self._restore(args, state)
        sinks = self._sinks if state.is_world_process_zero else ()
        self._logger = HistoryLogger(self.observer, self.prefix, sinks)
        self._scaler = getattr(optimizer, "scaler", None)
        self._compared = False
        observe: Any = torch.compiler.disable(self._observe)
        self._hook = model.register_forward_hook(observe)

    def _observe(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        if callable(self.losses):
            losses = self.losses(outputs)
        else:
            losses = _losses_in(outputs, self.losses, "give a function of the output as losses=")
        whole = self.observer(losses, scaler=self._scaler)
        if not self._compared:
            self._compared = True
            self._compare(float(whole.detach()), outputs)

    def _compare(self, added: float, outputs: Any) -> None:
        """Warn if the losses are not what the model adds up."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        whole = float(loss.detach())
        if abs(added - whole) > SAME * max(abs(added), abs(whole)):
            warnings.warn(
                f"the losses of the Observer must add up to the loss of the model, {whole:.4g}, "
                f"found {added:.4g} from {', '.join(self.observer.roles.terms)}: let losses= be a "
                "function of the output that gives them as they enter the sum, with their "
                "coefficients, and name what else is added in Observer(..., fixed=...)",
                stacklevel=2,
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the scalars to a log of the training."""
        if logs is not None and "loss" in logs and self._logger is not None:
            found = self._logger.collect()
            logs.update(found)
            if state.log_history:
                state.log_history[-1].update(found)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the state into the checkpoint."""
        folder = _checkpoint(args, state)
        if args.should_save and not args.save_only_model and os.path.isdir(folder):
            torch.save(self.observer.state_dict(), os.path.join(folder, STATE_FILE))

    def _restore(self, args: TrainingArguments, state: TrainerState) -> None:
        """Take the state from the checkpoint. A callback is not told where that is."""
        folders = [_checkpoint(args, state)]
        if isinstance(args.resume_from_checkpoint, str):
            folders.insert(0, args.resume_from_checkpoint)
        if not any(_restored(self.observer, folder) for folder in folders):
            warnings.warn(
                f"{' and '.join(folders)} must have {STATE_FILE}, found none: the observer starts "
                "from scratch, which changes no training; name the checkpoint in "
                "TrainingArguments(resume_from_checkpoint=...) if it is elsewhere",
                stacklevel=2,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look no more; the sinks get the remaining steps."""
        self._remove_hook()
        if self._logger is not None:
            self._logger.collect()

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def _losses_in(outputs: Any, name: str, otherwise: str) -> Mapping[str, Tensor | None]:
    """The losses by task that the model returns under ``name``."""
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    if not isinstance(found, Mapping):
        raise ValueError(
            f"the model must return its losses by task under {name!r}, found "
            f"{sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__}: "
            f"return them there, or {otherwise}"
        )
    return found


def _checkpoint(args: TrainingArguments, state: TrainerState) -> str:
    assert args.output_dir is not None
    return os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def _restored(balancer: Balancer, checkpoint: str) -> bool:
    """Take over the state in ``checkpoint``; False if it has none."""
    path = os.path.join(checkpoint, STATE_FILE)
    if not os.path.isfile(path):
        return False
    balancer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return True


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
