"""CLIP of transformers on generated pictures and captions, with its learnable temperature."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, set_seed

from arms import Arm
from entry import Entry, Outcome

ENTRY = Entry(
    title="CLIP, learnable temperature",
    package="transformers",
    metric="retrieval accuracy",
    better="higher",
    tasks=("caption", "image"),
)
STEPS, BATCH, SIDE = 1000, 32, 32
KINDS = (6, 3, 3, 3, 2)
"""Colors, shapes, columns, rows, sizes."""
START, END = 1, 3


def pairs(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, S, S) of one thing each, and captions (N, 7): what it is, and where."""
    draw = torch.Generator().manual_seed(seed)
    what = torch.stack([torch.randint(n, (number,), generator=draw) for n in KINDS])
    color, shape, column, row, size = what
    middle = (torch.stack([column, row], 1) + 0.5) / 3
    middle = middle + 0.08 * torch.randn(number, 2, generator=draw)
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = ((axis - m[:, None]).abs() / (0.09 + 0.08 * size[:, None]) for m in middle.T)
    x, y = x[:, None, :], y[:, :, None]
    forms = torch.stack([torch.maximum(x, y), (x.square() + y.square()).sqrt(), x + y])
    inside = (forms[shape, torch.arange(number)] < 1).float()[:, None]
    colors = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    pictures = inside * colors[color, :, None, None] - 0.5
    pictures = pictures + 0.3 * torch.randn(pictures.shape, generator=draw)
    first = torch.tensor([4, *KINDS[:-1]]).cumsum(0)
    words = (what.T + first)[:, torch.tensor([4, 0, 1, 2, 3])]
    start, end = torch.full((number, 1), START), torch.full((number, 1), END)
    return pictures, torch.cat([start, words, end], 1)


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return how often the right one of 64 is found, both ways, on new pairs."""
    pictures, captions = pairs(8192, seed)
    set_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    sizes |= {"num_hidden_layers": 2, "projection_dim": 32}
    ends = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0}
    text = {**sizes, **ends, "vocab_size": 4 + sum(KINDS), "max_position_embeddings": 8}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    balancer = arm.balancer(model)  # +
    target, cross_entropy = torch.arange(BATCH), torch.nn.functional.cross_entropy
    with arm.training():
        for _ in range(STEPS):
            batch = torch.randint(len(pictures), (BATCH,))
            out = model(input_ids=captions[batch], pixel_values=pictures[batch])
            caption = cross_entropy(out.logits_per_text, target) / 2
            image = cross_entropy(out.logits_per_image, target) / 2
            balancer.backward({"caption": caption, "image": image})  # +
            optimizer.step()
            optimizer.zero_grad()
    pictures, captions = pairs(2048, 10_000)
    found = []
    with torch.no_grad():
        for picture, caption in zip(pictures.split(64), captions.split(64), strict=True):
            similar = model.eval()(input_ids=caption, pixel_values=picture).logits_per_text
            found += [(way.argmax(1) == torch.arange(64)) for way in (similar, similar.T)]
    scale = model.logit_scale.exp().item()
    return Outcome(torch.cat(found).float().mean().item(), model, {"scale": scale})
