"""Real runs of the Trainer against loops by hand: the same parameters, multipliers and logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, SequentialSampler
from transformers import BertConfig, BertPreTrainedModel, TrainingArguments
from transformers.models.bert.modeling_bert import BertModel
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback

import _by_hand
import gaba
from _models import TwoStage, batch
from gaba.integrations.transformers import STATE_FILE, BalancedTrainer

SCALES = (100.0, 1.0)
OWN = ("balancer", "sinks", "compute_loss_func")


class Rows(Dataset[dict[str, Tensor]]):
    """32 inputs with two counts each: how many of the labels are to count."""

    def __init__(self) -> None:
        self.x = batch(0, n=32)
        self.labels = torch.randint(3, (32, 5), generator=torch.Generator().manual_seed(1))
        self.labels[::3, 2:] = -100

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


class Means(nn.Module):
    """Losses are means over the batch; the Trainer divides by the number of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TwoStage(SCALES)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        losses = self.net.losses(x)
        return {"loss": sum(losses.values()), "losses": losses, "logits": self.net.trunk(x)}  # pyright: ignore[reportArgumentType, reportCallIssue]


class Sums(nn.Module):
    """Losses are sums over labels, divided by `num_items_in_batch`: the Trainer divides no more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(6, 5)
        self.heads = nn.ModuleDict({"class": nn.Linear(5, 15), "size": nn.Linear(5, 5)})

    def forward(
        self, x: Tensor, labels: Tensor, num_items_in_batch: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        z, there = self.trunk(x), labels != -100
        count = there.sum() if num_items_in_batch is None else num_items_in_batch
        logits = self.heads["class"](z).view(-1, 5, 3)
        apart = (self.heads["size"](z) - labels).square()
        losses = {
            "class": functional.cross_entropy(logits.mT, labels, reduction="sum") / count,
            "size": 50 * apart[there].sum() / count,
        }
        return {"loss": losses["class"] + losses["size"], "losses": losses, "logits": logits}


def balancer_of(model: Any, **settings: Any) -> gaba.Balancer:
    if isinstance(model, Means):
        return gaba.Balancer(model.net.names, shared=model.net.trunk, **settings)
    return gaba.Balancer(["class", "size"], shared=model.trunk, **settings)


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    common = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.5,
        "logging_steps": 2,
        "save_strategy": "no",
    }
    return TrainingArguments(
        str(folder), report_to="none", use_cpu=True, disable_tqdm=True, **{**common, **settings}
    )


def trainer(
    model: nn.Module, folder: Path, kind: type[BalancedTrainer] = BalancedTrainer, **settings: Any
) -> BalancedTrainer:
    own = {name: settings.pop(name) for name in OWN if name in settings}

    class InOrder(kind):
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(Rows())

    return InOrder(
        model,
        arguments(folder, **settings),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        **{"balancer": balancer_of(model), **own},
    )


def batches(start: int) -> list[dict[str, Tensor]]:
    rows = [Rows()[i % 32] for i in range(4 * start, 4 * start + 8)]
    halves = (rows[:4], rows[4:])
    return [{key: torch.stack([r[key] for r in half]) for key in half[0]} for half in halves]


def by_hand(model: Any, steps: int) -> tuple[gaba.Balancer, list[dict[str, float]]]:
    """Two batches a step; and the losses by task as they count in the whole."""
    balancer = balancer_of(model, accumulate=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    counted: list[dict[str, float]] = []
    for step in range(steps):
        pair = batches(2 * step)
        items = sum((b["labels"] != -100).sum() for b in pair)
        row = dict.fromkeys(balancer.tasks, 0.0)
        for inputs in pair:
            extra = {"num_items_in_batch": items} if isinstance(model, Sums) else {}
            factor = 1.0 if isinstance(model, Sums) else 0.5
            losses = model(**inputs, **extra)["losses"]
            (factor * balancer(losses)).backward()
            for task, loss in losses.items():
                row[task] += factor * loss.item()
        counted.append(row)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    return balancer, counted


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", [Means, Sums])
def test_training_is_the_loop_written_by_hand(kind: type[nn.Module], tmp_path: Path) -> None:
    model, looped = kind(), kind()
    run = trainer(model, tmp_path)
    run.train()
    expected, counted = by_hand(looped, 4)
    assert_same(model, looped)
    assert run.balancer.multipliers == pytest.approx(expected.multipliers, rel=1e-5)
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for i, entry in enumerate(logs):
        for task in expected.tasks:
            mean = (counted[2 * i][task] + counted[2 * i + 1][task]) / 2
            assert entry[f"gaba/losses/{task}"] == pytest.approx(mean, rel=1e-4)
        history = expected.history
        known = history.imbalance[: 4 * i + 4]
        assert entry["gaba/imbalance"] == pytest.approx(known[np.isfinite(known)][-1], rel=1e-4)
        for name in ("multipliers", "weights"):
            logged = [entry[f"gaba/{name}/{task}"] for task in expected.tasks]
            np.testing.assert_allclose(logged, getattr(history, name)[4 * i + 3], rtol=1e-5)


def test_accumulation_is_taken_from_the_arguments_unless_it_was_given(tmp_path: Path) -> None:
    model = Means()
    run = trainer(model, tmp_path, gradient_accumulation_steps=4, max_steps=2)
    assert run.balancer.accumulate == 4
    run.train()
    multipliers = run.balancer.history.multipliers
    assert (multipliers[:4] == multipliers[0]).all()
    assert (multipliers[4:] == multipliers[4]).all()
    assert (multipliers[4] != multipliers[0]).any()
    with pytest.warns(UserWarning, match=r"of the trainer, 4, found 3: .* with accumulate=4"):
        trainer(
            model,
            tmp_path,
            gradient_accumulation_steps=4,
            balancer=balancer_of(model, accumulate=3),
        )
    observer = gaba.Observer(model.net.names, shared=model.net.trunk)
    trainer(model, tmp_path, balancer=observer)
    assert observer.accumulate == 1  # the multipliers of an Observer never change


class Three(Means):
    def __init__(self) -> None:
        super().__init__()
        self.net = TwoStage(_by_hand.SCALES)


def test_the_shares_are_measured_at_the_end_of_the_backward_pass(tmp_path: Path) -> None:
    model, looped = Three(), Three()
    run = trainer(model, tmp_path, balancer=_by_hand.balancer_of(model.net, 2))
    run.train()
    expected = _by_hand.balancer_of(looped.net, 2)
    optimizer = torch.optim.AdamW(looped.parameters(), lr=1e-2, weight_decay=0.0)
    rows = [half["x"] for step in range(4) for half in batches(2 * step)]
    truth = _by_hand.loop(looped.net, expected, optimizer, rows, accumulate=2, clip=0.5)
    assert_same(model, looped)
    _by_hand.assert_probed(run.balancer, expected, truth)
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    for entry, shares in zip(logs, run.balancer.history.shares[[3, 7]], strict=True):
        logged = [entry[f"gaba/shares/{task}"] for task in expected.tasks]
        np.testing.assert_allclose(logged, shares, rtol=1e-12)


def test_the_logged_losses_are_parts_of_the_logged_loss(tmp_path: Path) -> None:
    model = Sums()
    uniform = balancer_of(model, method="uniform", scale="simplex")
    run = trainer(model, tmp_path, balancer=uniform)
    run.train()
    for entry in (e for e in run.state.log_history if "loss" in e):
        mean = (entry["gaba/losses/class"] + entry["gaba/losses/size"]) / 2
        assert entry["loss"] == pytest.approx(mean, rel=1e-4)


class Seen(TrainerCallback):
    def __init__(self, balancer: gaba.Balancer) -> None:
        self.balancer = balancer
        self.steps: list[int] = []

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(len(self.balancer.history))


@pytest.mark.parametrize("kind", [Means, Sums])
def test_evaluation_is_untouched(kind: type[nn.Module], tmp_path: Path) -> None:
    model, looped = kind(), kind()
    run = trainer(model, tmp_path / "a", eval_strategy="steps", eval_steps=1)
    seen = Seen(run.balancer)
    run.add_callback(seen)
    run.train()
    by_hand(looped, 4)
    assert_same(model, looped)
    assert seen.steps == [2, 4, 6, 8]

    plain = Trainer(model, arguments(tmp_path / "b"), eval_dataset=Rows())
    before = run.balancer.multipliers
    assert run.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert run.balancer.multipliers == before
    found = run.predict(Rows()).predictions
    expected = model(**{key: getattr(Rows(), key) for key in ("x", "labels")})["logits"]
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_goes_on_where_it_was(tmp_path: Path) -> None:
    through, stopped, resumed = Means(), Means(), Means()
    whole = trainer(through, tmp_path / "whole")
    whole.train()
    trainer(stopped, tmp_path / "a", max_steps=2, save_strategy="steps", save_steps=2).train()
    checkpoint = tmp_path / "a" / "checkpoint-2"
    assert (checkpoint / STATE_FILE).is_file()
    run = trainer(resumed, tmp_path / "b")
    run.train(resume_from_checkpoint=str(checkpoint))
    for p, q in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
    assert run.balancer.multipliers == whole.balancer.multipliers
    assert run.balancer.history.steps.tolist() == [4, 5, 6, 7]
    last = [[e for e in t.state.log_history if "loss" in e][-1] for t in (whole, run)]
    for task in run.balancer.tasks:
        losses = [entry[f"gaba/losses/{task}"] for entry in last]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    (checkpoint / STATE_FILE).unlink()
    with pytest.warns(UserWarning, match="the balancer starts from scratch"):
        trainer(Means(), tmp_path / "c").train(resume_from_checkpoint=str(checkpoint))


def test_sinks_get_every_step(tmp_path: Path) -> None:
    model = Means()
    balancer = balancer_of(model)
    with gaba.RunRecord(tmp_path / "run.jsonl", balancer.tasks) as record:
        trainer(model, tmp_path, balancer=balancer, sinks=[record], logging_steps=3).train()
    read = gaba.History.read(tmp_path / "run.jsonl")
    np.testing.assert_array_equal(read.multipliers, balancer.history.multipliers)
    assert read.steps.tolist() == list(range(8))


class Elsewhere(BalancedTrainer):
    def task_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        return outputs["losses"][0]


class Odd(Means):
    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        found = super().forward(x, labels)
        return {**found, "losses": [found["losses"]]}


def test_losses_may_be_elsewhere(tmp_path: Path) -> None:
    model, looped = Odd(), Means()
    trainer(model, tmp_path, kind=Elsewhere).train()
    by_hand(looped, 4)
    assert_same(model, looped)
    with pytest.raises(ValueError, match=r"under 'losses', found \['logits', 'loss', 'losses'\]"):
        trainer(Odd(), tmp_path).train()


def test_what_cannot_be_balanced_is_refused(tmp_path: Path) -> None:
    model = Means()
    with pytest.raises(ValueError, match="compute_loss_func must not be given"):
        trainer(model, tmp_path, compute_loss_func=lambda *_, **__: torch.zeros(()))
    model.config = BertConfig()  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="label_smoothing_factor must not be given"):
        trainer(model, tmp_path, label_smoothing_factor=0.1)
    inside = Means()
    inside.add_module("balancer", balancer_of(inside))
    with pytest.raises(ValueError, match="must not be a part of the model"):
        trainer(inside, tmp_path, balancer=inside.balancer)


class Bert(BertPreTrainedModel):
    """A model as Transformers has them, saved and loaded by its own means."""

    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.first, self.second = nn.Linear(8, 2), nn.Linear(8, 2)
        self.post_init()

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Any]:
        states = self.bert(input_ids).last_hidden_state[:, 0]
        losses = {
            "first": functional.cross_entropy(self.first(states), labels % 2),
            "second": 30 * functional.cross_entropy(self.second(states), labels // 2),
        }
        return {"loss": losses["first"] + losses["second"], "losses": losses}


def test_a_pretrained_model_keeps_its_own_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Bert(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    rows = [{"input_ids": torch.arange(i, i + 4) % 12, "labels": i % 4} for i in range(16)]
    run = BalancedTrainer(
        model,
        arguments(tmp_path, save_strategy="steps", save_steps=4),
        train_dataset=rows,
        balancer=gaba.Balancer(["first", "second"], model.bert, "inverse"),
    )
    run.train()
    loaded = Bert.from_pretrained(tmp_path / "checkpoint-4")
    for p, q in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(p, q)
    history = run.balancer.history
    assert history.measured.tolist() == [True, False] * 4  # the first of the two in a step
    norms = history.norms[::2]
    assert np.all(history.imbalance[::2] < norms.max(1) / norms.min(1) / 4)
