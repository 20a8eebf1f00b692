"""A Trainer with the ObserverCallback trains as without it, and its record tells the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer import Trainer

import gaba
from _models import TwoStage, batch
from gaba.integrations.transformers import STATE_FILE, ObserverCallback

NAMES = ["task0", "task1", "task2"]


class Net(nn.Module):
    """Three losses; dropout, so that a random number too many would be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TwoStage((100.0, 1.0, 10.0))
        self.net.trunk.insert(2, nn.Dropout(0.3))

    def forward(self, x: Tensor) -> dict[str, Any]:
        losses = self.net.losses(x)
        return {"loss": sum(losses.values()), "losses": losses}  # pyright: ignore[reportArgumentType, reportCallIssue]


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    common: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "max_grad_norm": 0.5,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "label_names": ["x"],
        "prediction_loss_only": True,
    }
    return TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **(common | settings))


def rows() -> list[dict[str, Tensor]]:
    return [{"x": x} for x in batch(0, n=32)]


def plain(model: nn.Module, folder: Path, *callbacks: Any, **settings: Any) -> Trainer:
    data = settings.pop("data", None) or rows()
    collate = settings.pop("collate", None)
    return Trainer(
        model,
        arguments(folder, **settings),
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate,
        callbacks=list(callbacks),
    )


def observed(model: Net, **settings: Any) -> gaba.Balancer:
    return gaba.Observer(NAMES, shared=model.net.trunk, **settings)


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    for (name, mine), theirs in pairs:
        assert torch.equal(mine, theirs), name


class Exact(Trainer):
    """A Trainer that takes the norm of each loss by a gradient of its own."""

    theta: tuple[nn.Parameter, ...]
    terms: Callable[[Any], dict[str, Tensor]]

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        row = []
        for loss in self.terms(outputs).values():
            parts = torch.autograd.grad(loss, self.theta, retain_graph=True, allow_unused=True)
            row.append(sum(float(g.double().square().sum()) for g in parts if g is not None) ** 0.5)
        self.found.append(row)
        return outputs["loss"]

    @property
    def found(self) -> list[list[float]]:
        return self.__dict__.setdefault("_found", [])


def truth(
    model: nn.Module, shared: nn.Module, terms: Callable[[Any], dict[str, Tensor]], like: Trainer
) -> np.ndarray[Any, Any]:
    """(N, K), the norms of the losses in each batch of the run of ``like`` without a callback."""
    run = Exact(
        model,
        like.args,
        train_dataset=like.train_dataset,
        data_collator=like.data_collator,
    )
    run.theta, run.terms = tuple(p for p in shared.parameters() if p.requires_grad), terms
    run.train()
    return np.array(run.found)


def test_the_training_is_the_same_bit_for_bit_and_the_norms_are_true(tmp_path: Path) -> None:
    mine, other, third = Net(), Net(), Net()
    observer = observed(mine, every=1)
    run = plain(mine, tmp_path, ObserverCallback(observer))
    run.train()
    without = plain(other, tmp_path)
    without.train()
    assert_same_bits(mine, other)
    assert not torch.equal(mine.net.heads[0].weight, Net().net.heads[0].weight)  # pyright: ignore[reportArgumentType]
    expected = truth(third, third.net.trunk, lambda outputs: outputs["losses"], run)
    assert expected.shape == (12, 3)
    np.testing.assert_allclose(observer.history.norms, expected, rtol=1e-5)
    assert (observer.history.multipliers == 1).all()
    assert [e.get("loss") for e in run.state.log_history] == [
        e.get("loss") for e in without.state.log_history
    ]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_compiled_model_is_observed_too(tmp_path: Path) -> None:
    compiled: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": "eager"}
    mine, other, third = Net(), Net(), Net()
    observer = observed(mine, every=1)
    plain(mine, tmp_path, ObserverCallback(observer), **compiled).train()
    plain(other, tmp_path, **compiled).train()
    assert_same_bits(mine, other)
    eager = plain(third, tmp_path)
    expected = truth(third, third.net.trunk, lambda outputs: outputs["losses"], eager)
    np.testing.assert_allclose(observer.history.norms, expected, rtol=1e-5)


# --- DETR, which keeps its losses in loss_dict, without the weights of its sum --------------------


def detr() -> DetrForObjectDetection:
    torch.manual_seed(0)
    stages: dict[str, Any] = {"out_features": ["stage2"], "layer_type": "basic"}
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], **stages)
    small: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 5,
        "num_labels": 3,
    }
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, **small))


def pictures() -> list[dict[str, Any]]:
    noise = torch.Generator().manual_seed(1)
    box = torch.tensor([[0.5, 0.4, 0.2, 0.3]])
    return [
        {"pixel_values": torch.randn(3, 32, 32, generator=noise), "labels": {
            "class_labels": torch.tensor([i % 3]), "boxes": box + 0.01 * i}}
        for i in range(8)
    ]  # fmt: skip


def together(found: list[dict[str, Any]]) -> dict[str, Any]:
    pixels = torch.stack([row["pixel_values"] for row in found])
    return {"pixel_values": pixels, "labels": [row["labels"] for row in found]}


WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
DETECTION: dict[str, Any] = {
    "data": pictures(),
    "collate": together,
    "max_steps": 3,
    "label_names": ["labels"],
    "remove_unused_columns": False,
}


def terms(outputs: Any) -> dict[str, Tensor]:
    return {name: weight * outputs.loss_dict[name] for name, weight in WEIGHTS.items()}


def test_a_detr_is_observed_as_its_losses_enter_the_sum(tmp_path: Path) -> None:
    mine, other, third = detr(), detr(), detr()
    observer = gaba.Observer(list(WEIGHTS), shared=mine.model, every=1)
    run = plain(mine, tmp_path, ObserverCallback(observer, terms), **DETECTION)
    run.train()
    plain(other, tmp_path, **DETECTION).train()
    assert_same_bits(mine, other)
    expected = truth(third, third.model, terms, run)
    np.testing.assert_allclose(observer.history.norms, expected, rtol=1e-4)


def test_losses_that_are_not_those_of_the_sum_are_told_once(tmp_path: Path) -> None:
    model = detr()
    observer = gaba.Observer(list(WEIGHTS), shared=model.model, every=1)
    run = plain(model, tmp_path, ObserverCallback(observer, "loss_dict"), **DETECTION)
    with pytest.warns(UserWarning, match="must add up to the loss of the model") as told:
        run.train()
    assert len([w for w in told if "must add up" in str(w.message)]) == 1
    assert len(observer.history) == 6  # `cardinality_error`, a metric, is left out
    assert observer.history.measured.all()


# --- logs, sinks, state ---------------------------------------------------------------------------


def test_the_scalars_are_in_the_logs_of_the_training_and_of_who_stands_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    model = Net()
    observer = observed(model, every=1)
    settings = {"eval_strategy": "steps", "eval_steps": 2}
    callbacks = ObserverCallback(observer, prefix="pull"), TensorBoardCallback()
    run = plain(model, tmp_path, *callbacks, **settings)
    run.train()
    history = observer.history
    assert len(history) == 12  # evaluation is not observed
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    others = [entry for entry in run.state.log_history if "loss" not in entry]
    assert len(logs) == 3
    assert not [name for entry in others for name in entry if name.startswith("pull")]
    for i, entry in enumerate(logs):
        for k, task in enumerate(NAMES):
            assert entry[f"pull/norms/{task}"] == history.norms[4 * i + 3, k]
            mean = history.losses[4 * i : 4 * i + 4, k].mean()
            assert entry[f"pull/losses/{task}"] == pytest.approx(mean, rel=1e-12)
        assert entry["pull/imbalance"] == history.imbalance[4 * i + 3]
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    written = board.Scalars("train/pull/norms/task0")
    assert [event.step for event in written] == [2, 4, 6]
    np.testing.assert_allclose(
        [event.value for event in written], history.norms[[3, 7, 11], 0], rtol=1e-6
    )


def test_sinks_get_every_step_and_after_the_training_nothing_is_observed(tmp_path: Path) -> None:
    model = Net()
    observer = observed(model)
    with gaba.RunRecord(tmp_path / "run.jsonl", NAMES) as record:
        callback = ObserverCallback(observer, sinks=[record])
        plain(model, tmp_path, callback, logging_steps=5).train()
    read = gaba.History.read(tmp_path / "run.jsonl")
    np.testing.assert_array_equal(read.norms, observer.history.norms)
    assert read.steps.tolist() == list(range(12))
    model.train()(batch(0))
    assert len(observer.history) == 12


def test_a_checkpoint_goes_on_where_it_was(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 20, "gradient_accumulation_steps": 1}
    whole, stopped, resumed, lost = Net(), Net(), Net(), Net()
    one = observed(whole)
    plain(whole, tmp_path / "whole", ObserverCallback(one), max_steps=40, **saved).train()
    callback = ObserverCallback(observed(stopped))
    plain(stopped, tmp_path / "a", callback, max_steps=20, **saved).train()
    checkpoint = tmp_path / "a" / "checkpoint-20"
    assert (checkpoint / STATE_FILE).is_file()
    two = observed(resumed)
    run = plain(resumed, tmp_path / "a", ObserverCallback(two), max_steps=40, **saved)
    run.train(resume_from_checkpoint=str(checkpoint))
    assert two.history.steps.tolist() == list(range(20, 40))
    measured = one.history.measured
    assert two.history.measured.tolist() == measured[20:].tolist()
    assert 0 < measured[20:].sum() < 20

    (checkpoint / STATE_FILE).unlink()
    three = observed(lost)
    run = plain(lost, tmp_path / "a", ObserverCallback(three), max_steps=40, **saved)
    with pytest.warns(UserWarning, match="the observer starts from scratch"):
        run.train(resume_from_checkpoint=str(checkpoint))
    assert three.history.steps.tolist() == list(range(20))
    assert three.history.measured.tolist() == measured[:20].tolist() != measured[20:].tolist()


def test_a_checkpoint_elsewhere_is_found_by_the_arguments(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    stopped, resumed = Net(), Net()
    plain(stopped, tmp_path / "a", ObserverCallback(observed(stopped)), **saved).train()
    checkpoint = str(tmp_path / "a" / "checkpoint-2")
    observer = observed(resumed)
    settings: dict[str, Any] = {"max_steps": 3, "resume_from_checkpoint": checkpoint}
    run = plain(resumed, tmp_path / "b", ObserverCallback(observer), **settings)
    run.train(resume_from_checkpoint=checkpoint)
    assert observer.history.steps.tolist() == [4, 5]


# --- mixed precision ------------------------------------------------------------------------------


class Half(Net):
    """The second loss is so small that in float16 its gradient is 0, unless it is scaled."""

    rounded = True

    def forward(self, x: Tensor) -> dict[str, Any]:
        with torch.autocast("cpu", dtype=torch.float16, enabled=self.rounded):
            losses = self.net.losses(x)
        factors = (1e-4, 1e-7, 1e-3)
        small = {n: f * v for f, (n, v) in zip(factors, losses.items(), strict=True)}  # pyright: ignore[reportOperatorIssue]
        return {"loss": sum(small.values()), "losses": small}


def scaled(model: nn.Module, folder: Path, *callbacks: Any) -> Trainer:
    run = plain(model, folder, *callbacks)
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13)
    return run


def test_under_a_scaler_small_losses_do_not_vanish(tmp_path: Path) -> None:
    mine, other, unscaled, whole = Half(), Half(), Half(), Half()
    observer, without = observed(mine, every=1), observed(unscaled, every=1)
    scaled(mine, tmp_path, ObserverCallback(observer)).train()
    scaled(other, tmp_path).train()
    assert_same_bits(mine, other)
    run = plain(unscaled, tmp_path, ObserverCallback(without), max_steps=1)
    run.train()
    assert (without.history.norms[:, 1] == 0).all()
    whole.rounded = False
    expected = truth(whole, whole.net.trunk, lambda outputs: outputs["losses"], run)
    assert (expected[:, 1] > 0).all()
    np.testing.assert_allclose(observer.history.norms[:2], expected, rtol=0.02)


# --- what is refused ------------------------------------------------------------------------------


class Without(Net):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"loss": super().forward(x)["loss"]}


def test_what_cannot_be_observed_is_refused(tmp_path: Path) -> None:
    model = Without()
    with pytest.raises(ValueError, match=r"balances by .*: use gaba\.Observer, or"):
        ObserverCallback(gaba.Balancer(NAMES, shared=model.net.trunk))
    with pytest.raises(ValueError, match=r"under 'losses', found \['loss'\]: .* function"):
        plain(model, tmp_path, ObserverCallback(observed(model))).train()
    inside = Net()
    inside.add_module("observer", observed(inside))
    with pytest.raises(ValueError, match="observer must not be a part of the model"):
        plain(inside, tmp_path, ObserverCallback(inside.observer)).train()  # pyright: ignore[reportArgumentType]
    many = arguments(tmp_path)
    many._n_gpu = 2
    callback = ObserverCallback(observed(model))
    run = plain(model, tmp_path)
    with pytest.raises(ValueError, match="found 2 devices in one: start with torchrun"):
        callback.on_train_begin(many, run.state, run.control, model=model)
