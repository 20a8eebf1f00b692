"""BERT of transformers, pretrained on generated text: masked words and next sentence."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, BertForPreTraining, set_seed

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="BERT pretraining, tied embeddings",
    package="transformers",
    metric="mean accuracy",
    better="higher",
    tasks=("masked", "next"),
)
STEPS, BATCH, HALF = 1000, 32, 12
CLS, SEP, MASK, WORDS, STATES = 1, 2, 3, 40, 20
VOCABULARY = 4 + WORDS


def text(lines: int, length: int, seed: int, topics: int = 4) -> tuple[Tensor, Tensor]:
    """Lines (N, T) of a Markov chain and their topics (N,): each topic has words of its own."""
    language, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    chain = 0.3 ** torch.rand(STATES, STATES, generator=language).argsort(1).float()
    own = torch.rand(topics, WORDS, generator=language).argsort(1)[:, :STATES]
    topic = torch.randint(topics, (lines,), generator=draw)
    states = [torch.randint(STATES, (lines,), generator=draw)]
    for _ in range(length - 1):
        states.append(torch.multinomial(chain[states[-1]], 1, generator=draw)[:, 0])
    return own[topic[:, None], torch.stack(states, 1)] + 4, topic


def masked(words: Tensor, part: float = 0.15) -> tuple[Tensor, Tensor]:
    """Words of which a part is masked, and the labels of that part."""
    hidden = (torch.rand(words.shape) < part) & (words >= 4)
    return words.masked_fill(hidden, MASK), words.masked_fill(~hidden, -100)


def pairs(lines: int, seed: int) -> tuple[Tensor, Tensor]:
    """``CLS A SEP B SEP`` and whether B is of another line than A."""
    (words, _), other = text(lines, 2 * HALF, seed), torch.arange(lines) % 2
    second = torch.where(other[:, None] == 1, words.roll(1, 0), words)[:, HALF:]
    cls, sep = torch.full((lines, 1), CLS), torch.full((lines, 1), SEP)
    return torch.cat([cls, words[:, :HALF], sep, second, sep], 1), other


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean of both accuracies on new text."""
    words, other = pairs(8192, seed)
    set_seed(seed)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    config = BertConfig(vocab_size=VOCABULARY, num_attention_heads=4, **size)
    model = BertForPreTraining(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    kinds = (torch.arange(words.shape[1]) > HALF + 1).long()
    balancer = arm.balancer(model.bert)  # +
    cross_entropy = torch.nn.functional.cross_entropy
    with arm.training():
        for _ in range(STEPS):
            batch = torch.randint(len(words), (BATCH,))
            inputs, labels = masked(words[batch])
            out = model(inputs, token_type_ids=kinds.expand(BATCH, -1))
            word = cross_entropy(out.prediction_logits.flatten(0, 1), labels.flatten())
            follows = cross_entropy(out.seq_relationship_logits, other[batch])
            balancer.backward({"masked": word, "next": follows})  # +
            optimizer.step()
            optimizer.zero_grad()
    words, other = pairs(1024, 10_000)
    set_seed(0)
    inputs, labels = masked(words)
    with torch.no_grad():
        out = model.eval()(inputs, token_type_ids=kinds.expand(len(words), -1))
    found = (out.prediction_logits.argmax(2) == labels)[labels > 0].float().mean().item()
    told = (out.seq_relationship_logits.argmax(1) == other).float().mean().item()
    return Outcome((found + told) / 2, model, {"masked": found, "next": told})
