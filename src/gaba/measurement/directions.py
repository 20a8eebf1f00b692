"""Random directions v in the shared parameters, made from two numbers: a seed and a count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gaba.splitmix import FIRST, GOLDEN, SECOND, mix, signed, words
from gaba.tensors import dense, shaped

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def direction(parameters: Sequence[Tensor], seed: int, count: Tensor) -> list[Tensor]:
    """An independent random sign, ±1, for each number in ``parameters``.

    The signs are a function of ``seed`` and ``count`` alone: each bit of the i-th word of 64 bits,
    a hash of (seed, count, i), is one. No generator is touched, no device is waited for, and every
    rank gets the same direction.

    Args:
        parameters: tensors of any shapes, dtypes and devices; complex ones count as pairs.
        seed: any integer.
        count: (), int64, the number of the direction.

    Returns:
        Tensors of the shapes, dtypes and devices of ``parameters``.

    Example:
        >>> two = [torch.zeros(2, 2), torch.zeros(3)]
        >>> v = direction(two, seed=0, count=torch.tensor(7))
        >>> [part.abs().tolist() for part in v]
        [[[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0, 1.0]]
    """
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, p in enumerate(parameters):
        groups.setdefault((p.device, p.dtype.to_real()), []).append(i)
    found: dict[int, Tensor] = {}
    for number, ((device, dtype), members) in enumerate(groups.items()):
        key = mix(mix(count + signed(seed * GOLDEN + SECOND)) + signed(number * FIRST))
        sizes = [math.prod(dense(parameters[i]).shape) for i in members]
        signs = _signs(sum(sizes), key.to(device, non_blocking=True), dtype)
        for i, part in zip(members, signs.split(sizes), strict=True):
            found[i] = shaped(part, parameters[i])
    return [found[i] for i in range(len(parameters))]


def rotations(n: int, width: int, seed: int, count: Tensor) -> Tensor:
    """Random numbers (n,) below ``width``, int64, a function of ``seed`` and ``count`` alone."""
    return words(n, mix(mix(count + signed(seed * GOLDEN + FIRST)))) % width


def _signs(n: int, key: Tensor, dtype: torch.dtype) -> Tensor:
    """±1 (n,): each bit of the words in turn is the sign of a 1."""
    whole = _INTEGERS[dtype.itemsize]
    bits = words(-(-n // 64), key).view(whole)
    shifts = torch.arange(8 * dtype.itemsize, dtype=whole, device=key.device)
    planes = (bits << shifts[:, None]).view(dtype)
    one = torch.ones((), dtype=dtype, device=key.device)
    return torch.copysign(one, planes, out=planes).flatten()[:n]
