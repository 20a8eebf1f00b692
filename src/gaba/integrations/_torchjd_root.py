"""A Jacobian in place of the one that nobody holds: from a Gramian to a matrix of K rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Root:
    """S (K, r) with S Sᵀ = G, r the rank of G.

    J = S Q for the Jacobian J (K, P) itself, with Q (r, P) of orthonormal rows. An aggregator A
    that looks at inner products of rows only, and answers in their span, gives A(J) = A(S) Q: with
    weights w that solve Sᵀ w = A(S), Jᵀ w = A(J).

    With D the norms, G = D C D and C = V Λ Vᵀ, S is D V Λ^½. What is in C below its own rounding
    error is left out, and a gradient of 1e-9 beside one of 1e9 keeps all of its digits.

    Attributes:
        matrix: (K, r), S.
        inverse: (K, r), that takes A(S) to w: the pseudoinverse of Sᵀ but for the norms.
    """

    matrix: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, gramian: Tensor) -> Root:
        """The root of ``gramian`` (K, K), finite and positive semi-definite."""
        norms = gramian.diagonal().clamp(min=0).sqrt()
        inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
        values, vectors = torch.linalg.eigh(gramian * inverse[:, None] * inverse)
        noise = 4 * len(norms) * torch.finfo(gramian.dtype).eps * values[-1]
        kept = values > noise
        kept[-1] = True  # one column at least, be it of zeros
        sizes, vectors = values[kept].clamp(min=0).sqrt(), vectors[:, kept]
        back = torch.where(sizes > 0, 1 / sizes, torch.zeros_like(sizes))
        return cls(norms[:, None] * vectors * sizes, inverse[:, None] * vectors * back)

    def weights_of(self, answer: Tensor) -> Tensor:
        """The weights w (K,) with Sᵀ w = ``answer`` (r,)."""
        return self.inverse @ answer
