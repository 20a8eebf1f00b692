"""wav2vec 2.0 of transformers, pretrained on generated speech: contrast and use of the codebook."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining, set_seed
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    _compute_mask_indices,
    _sample_negative_indices,
)

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="wav2vec 2.0 pretraining",
    package="transformers",
    metric="accuracy of a linear probe",
    better="higher",
    tasks=("contrastive",),
    fixed=("diversity",),
    why_fixed="The diversity of the codebook is a regularizer.",
)
STEPS, BATCH, NEGATIVES = 450, 12, 10
PHONES, SOUNDS, LENGTH, FRAME = 16, 12, 80, 20
"""Phones of the language; sounds of a line, samples of each, samples of a frame."""


def speech(lines: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sounds (N, samples), two partials a phone, and the phone of each frame (N, frames)."""
    language, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    chain = 0.4 ** torch.rand(PHONES, PHONES, generator=language).argsort(1).float()
    partials = 0.05 + 0.9 * torch.rand(PHONES, 2, generator=language)
    phones = [torch.randint(PHONES, (lines,), generator=draw)]
    for _ in range(SOUNDS - 1):
        phones.append(torch.multinomial(chain[phones[-1]], 1, generator=draw)[:, 0])
    phone = torch.stack(phones, 1).repeat_interleave(LENGTH, 1)
    speaker = 1 + 0.05 * torch.randn(lines, 1, 1, generator=draw)
    phase = (partials[phone] * speaker).cumsum(1) + 6.3 * torch.rand(lines, 1, 2, generator=draw)
    sound = phase.sin().sum(2)
    sound = sound + 0.5 * torch.randn(sound.shape, generator=draw)
    return sound / sound.std(1, keepdim=True), phone


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return how well the phone of a frame can be read from the trunk."""
    sounds, _ = speech(1024, seed)
    set_seed(seed)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    size |= {"conv_dim": (64, 64, 64), "conv_kernel": (10, 4, 4), "conv_stride": (5, 2, 2)}
    size |= {"num_codevectors_per_group": 16, "codevector_dim": 64, "proj_codevector_dim": 64}
    size |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    size |= {"num_attention_heads": 4, "num_negatives": NEGATIVES, "feat_extract_norm": "layer"}
    model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**size))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    frames = int(model._get_feat_extract_output_lengths(sounds.shape[1]))
    balancer = arm.balancer(model.wav2vec2.feature_extractor)  # +
    with arm.training():
        for _ in range(STEPS):
            batch = sounds[torch.randint(len(sounds), (BATCH,))]
            mask = _compute_mask_indices((BATCH, frames), 0.5, 4)
            others = _sample_negative_indices((BATCH, frames), NEGATIVES, mask)
            mask, others = torch.from_numpy(mask), torch.from_numpy(others)
            out = model(batch, mask_time_indices=mask, sampled_negative_indices=others)
            diversity = model.config.diversity_loss_weight * out.diversity_loss
            balancer.backward({"contrastive": out.contrastive_loss, "diversity": diversity})  # +
            optimizer.step()
            optimizer.zero_grad()
    sounds, phones = speech(192, 10_000)
    phones = phones[:, torch.arange(frames) * FRAME + FRAME // 2].flatten(1).numpy()
    with torch.no_grad():
        read = np.concatenate([model.eval().wav2vec2(s)[0] for s in sounds.split(32)])
    probe = RidgeClassifier().fit(read[:96].reshape(-1, 64), phones[:96].ravel())
    return Outcome(probe.score(read[96:].reshape(-1, 64), phones[96:].ravel()), model)
