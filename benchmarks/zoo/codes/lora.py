"""LoRA of peft on a BERT with two heads: the topic of a line, and its stars."""

from __future__ import annotations

import torch
from codes.bert import CLS, VOCABULARY, WORDS, masked, text
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, set_seed

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="LoRA, topic and stars",
    package="peft, transformers",
    metric="mean of accuracy and R²",
    better="higher",
    tasks=("topic", "stars"),
)
STEPS, LESSONS, BATCH, LENGTH, WIDTH, TOPICS = 1000, 400, 32, 14, 64, 16


def lines(number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """``CLS`` and words (N, T), topics (N,), and stars (N,) around 3, by the mood of the words."""
    words, topics = text(number, LENGTH, seed, TOPICS)
    moods = torch.randn(WORDS, generator=torch.Generator().manual_seed(0))
    stars = 3 + moods[words - 4].sum(1) / LENGTH**0.5
    return torch.cat([torch.full((number, 1), CLS), words], 1), topics, stars


def read(words: Tensor) -> nn.Module:
    """A BERT that has read the words."""
    size = {"hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 2 * WIDTH}
    model = BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, num_attention_heads=4, **size))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(LESSONS):
        inputs, labels = masked(words[torch.randint(len(words), (BATCH,))])
        model(inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.bert


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean of the accuracy and R² on new lines."""
    words, topics, stars = lines(8192, seed)
    set_seed(seed)
    adapted = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["query", "value"])
    trunk = get_peft_model(read(words), adapted)
    topic_head, stars_head = nn.Linear(WIDTH, TOPICS), nn.Linear(WIDTH, 1)
    model = nn.ModuleList([trunk, topic_head, stars_head])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    balancer = arm.balancer(trunk)  # +
    with arm.training():
        for _ in range(STEPS):
            batch = torch.randint(len(words), (BATCH,))
            first = trunk(words[batch]).last_hidden_state[:, 0]
            topic = nn.functional.cross_entropy(topic_head(first), topics[batch])
            star = nn.functional.mse_loss(stars_head(first)[:, 0], stars[batch])
            balancer.backward({"topic": topic, "stars": star})  # +
            optimizer.step()
            optimizer.zero_grad()
    words, topics, stars = lines(2048, 10_000)
    with torch.no_grad():
        first = model.eval()[0](words).last_hidden_state[:, 0]
    told = (topic_head(first).argmax(1) == topics).float().mean().item()
    error = stars_head(first)[:, 0].detach() - stars
    fit = 1 - (error.square().mean() / stars.var(correction=0)).item()
    return Outcome((told + fit) / 2, model, {"topic": told, "stars": fit})
