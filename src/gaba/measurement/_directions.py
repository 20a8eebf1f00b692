"""Random directions v in the shared parameters, made anew from two numbers: a seed and a count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["rademacher", "gaussian"]

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def direction(
    parameters: Sequence[Tensor], seed: int, count: Tensor, distribution: Distribution
) -> list[Tensor]:
    """Independent numbers of mean 0 and variance 1, one for each number in ``parameters``.

    They are a function of ``seed`` and ``count`` alone: the i-th word of 64 bits is a hash of
    (seed, count, i), and each bit is a sign (or two halves of the word a pair of Gaussian numbers).
    No generator is touched, no device is waited for, and every rank gets the same direction.

    Args:
        parameters: tensors of any shapes, dtypes and devices; complex ones count as pairs.
        seed: any integer.
        count: (), int64, the number of the direction.
        distribution: ``"rademacher"`` (±1) or ``"gaussian"``.

    Returns:
        Tensors of the shapes, dtypes and devices of ``parameters``.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014
    (the hash is SplitMix64's); Box and Muller 1958 for the Gaussian pairs.

    Example:
        >>> two = [torch.zeros(2, 2), torch.zeros(3)]
        >>> v = direction(two, seed=0, count=torch.tensor(7), distribution="rademacher")
        >>> [part.abs().tolist() for part in v]
        [[[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0, 1.0]]
    """
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, p in enumerate(parameters):
        groups.setdefault((p.device, _real(p).dtype), []).append(i)
    found: dict[int, Tensor] = {}
    for number, ((device, dtype), members) in enumerate(groups.items()):
        key = _mix(_mix(count + _signed(seed * _GOLDEN + _SECOND)) + _signed(number * _FIRST))
        shapes = [_real(parameters[i]).shape for i in members]
        sizes = [math.prod(shape) for shape in shapes]
        make = _signs if distribution == "rademacher" else _gaussians
        flat = make(sum(sizes), key.to(device, non_blocking=True), dtype)
        for i, part, shape in zip(members, flat.split(sizes), shapes, strict=True):
            whole = part.view(shape)
            found[i] = torch.view_as_complex(whole) if parameters[i].is_complex() else whole
    return [found[i] for i in range(len(parameters))]


def stretched(v: Sequence[Tensor], scales: Sequence[Tensor]) -> list[Tensor]:
    """``v`` with entries of standard deviation ``scales`` instead of 1; complex ones as pairs."""
    found = []
    for part, scale in zip(v, scales, strict=True):
        real = _real(part)
        longer = (real * scale).to(real.dtype)
        found.append(torch.view_as_complex(longer) if part.is_complex() else longer)
    return found


def rotations(n: int, width: int, seed: int, count: Tensor) -> Tensor:
    """Random numbers (n,) below ``width``, int64, a function of ``seed`` and ``count`` alone."""
    return _words(n, _mix(_mix(count + _signed(seed * _GOLDEN + _FIRST)))) % width


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor


def _signs(n: int, key: Tensor, dtype: torch.dtype) -> Tensor:
    """±1: each bit of the words in turn is the sign of a 1."""
    whole = _INTEGERS[dtype.itemsize]
    words = _words(-(-n // 64), key).view(whole)
    shifts = torch.arange(8 * dtype.itemsize, dtype=whole, device=key.device)
    planes = (words << shifts[:, None]).view(dtype)
    one = torch.ones((), dtype=dtype, device=key.device)
    return torch.copysign(one, planes, out=planes).flatten()[:n]


def _gaussians(n: int, key: Tensor, dtype: torch.dtype) -> Tensor:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    words = _words(-(-n // 2), key)
    low, high = (half.to(wide) for half in (words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF))
    radius = ((low + 0.5) / 2**32).log_().mul_(-2).sqrt_()
    angle = high * (2 * math.pi / 2**32)
    return torch.stack((radius * angle.cos(), radius * angle.sin())).flatten()[:n].to(dtype)


def _words(n: int, key: Tensor) -> Tensor:
    return _mix(torch.arange(1, n + 1, device=key.device) * _signed(_GOLDEN) + key)


def _mix(words: Tensor) -> Tensor:
    """A hash of 64 bits to 64 bits; arithmetic on int64 wraps round, and shifts fill with zeros."""
    words = (words ^ ((words >> 30) & (2**34 - 1))) * _signed(_FIRST)
    words = (words ^ ((words >> 27) & (2**37 - 1))) * _signed(_SECOND)
    return words ^ ((words >> 31) & (2**33 - 1))


def _signed(number: int) -> int:
    """``number`` modulo 2⁶⁴ as an int64."""
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number
