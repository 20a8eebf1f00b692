"""Mixtral of transformers on generated text: next word, topic, balance of the experts."""

from __future__ import annotations

import torch
from codes.bert import VOCABULARY, text
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, set_seed

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="Mixtral, next word and topic",
    package="transformers",
    metric="mean accuracy",
    better="higher",
    tasks=("language", "topic"),
    fixed=("router",),
    why_fixed="The balance of the experts is a regularizer.",
)
STEPS, BATCH, LENGTH, TOPICS = 1300, 32, 8, 48


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the mean of both accuracies on new text."""
    words, topics = text(8192, LENGTH, seed, TOPICS)
    set_seed(seed)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        router_aux_loss_coef=0.02,
        output_router_logits=True,
        **size,
    )
    model = MixtralForCausalLM(config)
    model.topic = nn.Linear(config.hidden_size, TOPICS)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    balancer = arm.balancer(model.model)  # +
    with arm.training():
        for _ in range(STEPS):
            batch = torch.randint(len(words), (BATCH,))
            out = model(words[batch], output_hidden_states=True)
            language = model.loss_function(out.logits, words[batch], VOCABULARY)
            guess = model.topic(out.hidden_states[-1][:, -1])
            topic = nn.functional.cross_entropy(guess, topics[batch])
            router = config.router_aux_loss_coef * out.aux_loss
            balancer.backward({"language": language, "topic": topic, "router": router})  # +
            optimizer.step()
            optimizer.zero_grad()
    words, topics = text(2048, LENGTH, 10_000, TOPICS)
    with torch.no_grad():
        out = model.eval()(words, output_hidden_states=True)
        guess = model.topic(out.hidden_states[-1][:, -1])
    found = (out.logits[:, :-1].argmax(2) == words[:, 1:]).float().mean().item()
    told = (guess.argmax(1) == topics).float().mean().item()
    others = {"language": found, "topic": told, "router": out.aux_loss.item()}
    return Outcome((found + told) / 2, model, others)
