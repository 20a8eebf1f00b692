"""SplitMix64 as pure functions of int64 tensors: random words that are hashes of what they are for.

No generator is touched and no device is waited for. The same numbers come out on every device, on
every rank, and after a resume. Arithmetic on int64 wraps around, as the hash needs it.

Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor


def signed(number: int) -> int:
    """``number`` modulo 2⁶⁴ as an int64.

    >>> signed(2**64 - 1), signed(5)
    (-1, 5)
    """
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number


GOLDEN = signed(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio: the step between two words of a stream."""
FIRST = signed(0xBF58476D1CE4E5B9)
"""The first factor of the hash."""
SECOND = signed(0x94D049BB133111EB)
"""The second factor of the hash."""


def mix(words: Tensor) -> Tensor:
    """A hash of 64 bits to 64 bits of every number in ``words`` (int64, any shape)."""
    words = (words ^ shifted(words, 30)) * FIRST
    words = (words ^ shifted(words, 27)) * SECOND
    return words ^ shifted(words, 31)


def words(n: int, key: Tensor) -> Tensor:
    """The first ``n`` random words (n,) of the stream that starts at ``key`` (int64, ())."""
    return mix(torch.arange(1, n + 1, device=key.device) * GOLDEN + key)


def shifted(words: Tensor, n: int) -> Tensor:
    """``words`` to the right by ``n`` bits, with zeros from the left, as torch itself does not."""
    return (words >> n) & ((1 << (64 - n)) - 1)
