"""DistilBERT of transformers taught by a BERT: soft targets, labels and hidden states.

The coefficients and their order are those of the script that made DistilBERT.
"""

from __future__ import annotations

import torch
from codes.bert import VOCABULARY, masked, text
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    set_seed,
)

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="Distillation of BERT",
    package="transformers",
    metric="accuracy on masked words",
    better="higher",
    tasks=("teacher", "label", "hidden"),
)
STEPS, LESSONS, BATCH, LENGTH, WIDTH, TOPICS = 900, 600, 32, 24, 64, 2
HOTNESS = 2.0


def teach(words: torch.Tensor) -> BertForMaskedLM:
    """A BERT that has read the words."""
    size = {"hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 2 * WIDTH}
    size |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    teacher = BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, num_attention_heads=4, **size))
    optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
    for _ in range(LESSONS):
        inputs, labels = masked(words[torch.randint(len(words), (BATCH,))])
        teacher(inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return teacher.eval().requires_grad_(False)


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return how many masked words of new text the student finds."""
    words, _ = text(8192, LENGTH, seed, TOPICS)
    set_seed(seed)
    teacher = teach(words)
    size = {"dim": WIDTH, "hidden_dim": 2 * WIDTH, "n_layers": 1, "n_heads": 4}
    student = DistilBertForMaskedLM(DistilBertConfig(vocab_size=VOCABULARY, **size))
    optimizer = torch.optim.AdamW(student.parameters(), 3e-3)
    balancer = arm.balancer(student.distilbert)  # +
    divergence, similar = nn.KLDivLoss(reduction="batchmean"), nn.CosineEmbeddingLoss()
    with arm.training():
        for _ in range(STEPS):
            inputs, labels = masked(words[torch.randint(len(words), (BATCH,))])
            told = teacher(inputs, output_hidden_states=True)
            out = student(inputs, labels=labels, output_hidden_states=True)
            asked = labels >= 0
            soft = (told.logits[asked] / HOTNESS).softmax(1)
            kl = divergence((out.logits[asked] / HOTNESS).log_softmax(1), soft) * HOTNESS**2
            states = (m.hidden_states[-1].flatten(0, 1) for m in (out, told))
            hidden = similar(*states, torch.ones(inputs.numel()))
            balancer.backward({"teacher": 5 * kl, "label": 2 * out.loss, "hidden": hidden})  # +
            optimizer.step()
            optimizer.zero_grad()
    words, _ = text(2048, LENGTH, 10_000, TOPICS)
    set_seed(0)
    inputs, labels = masked(words)
    with torch.no_grad():
        words = [m.eval()(inputs).logits.argmax(2) for m in (student, teacher)]
    found, teachers = ((w == labels)[labels > 0].float().mean().item() for w in words)
    return Outcome(found, student, {"teacher": teachers})
