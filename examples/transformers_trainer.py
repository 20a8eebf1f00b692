"""The Trainer of Transformers with a balancer: a model that returns its losses by task."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import BertConfig, BertModel, TrainingArguments
from transformers.utils.generic import ModelOutput

import gaba
from gaba.integrations.transformers import BalancedTrainer


@dataclass
class Output(ModelOutput):
    """What the model returns: the usual, and the losses by task."""

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None


class Tagger(nn.Module):
    """A small encoder with a classifier of the sentence and a regression on each token."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        self.encoder = BertModel(config)
        self.kind, self.length = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, input_ids: Tensor, kind: Tensor, length: Tensor) -> Output:
        """The losses by task, and the plain sum that evaluation uses."""
        states = self.encoder(input_ids).last_hidden_state
        logits = self.kind(states[:, 0])
        losses = {
            "kind": functional.cross_entropy(logits, kind),
            "length": functional.mse_loss(self.length(states).squeeze(-1), length),
        }
        return Output(loss=losses["kind"] + losses["length"], losses=losses, logits=logits)


class Sentences(Dataset[dict[str, Tensor]]):
    """Sentences of random tokens; the labels follow from the tokens."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.randint(50, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "kind": ids[0] % 3, "length": ids.float()}


torch.manual_seed(0)
model = Tagger()
with tempfile.TemporaryDirectory() as folder:
    trainer = BalancedTrainer(
        model,
        TrainingArguments(
            folder,
            max_steps=120,
            gradient_accumulation_steps=2,
            logging_steps=60,
            label_names=["kind", "length"],
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=Sentences(),
        eval_dataset=Sentences(),
        balancer=gaba.Balancer(tasks=["kind", "length"], shared=model.encoder),
    )
    trainer.train()
    trainer.evaluate()
