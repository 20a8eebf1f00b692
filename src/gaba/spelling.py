"""Names as people write them: what was meant, where a name is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "is_regularizer", "letters", "nearest"]

REGULARIZERS = frozenset(
    (
        "kl",
        "kld",
        "kldiv",
        "entropy",
        "bonus",
        "regularizer",
        "regulariser",
        "regularization",
        "regularisation",
        "penalty",
        "commit",
        "commitment",
        "router",
        "sparsity",
        "smoothness",
        "tv",
        "decay",
        "orthogonality",
        "diversity",
        "prior",
        "variance",
        "covariance",
    )
)
"""Words by which people call losses that are not to reach their end."""


def nearest(found: object, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``found`` most likely means; ``None`` if there is none.

    Case, dashes and underscores do not count.

    Example:
        >>> nearest("Nash_MTL", ["gaba", "nash-mtl"]), nearest("loss_rul", ["rul", "health"])
        ('nash-mtl', 'rul')
    """
    by_letters = {letters(name): name for name in reversed(tuple(known))}
    word = letters(str(found))
    parts = [part for part in re.split(r"[^0-9a-z]+", str(found).lower()) if part in by_letters]
    near = difflib.get_close_matches(word, by_letters, n=1)
    same = [word] if word in by_letters else []
    return next((by_letters[match] for match in (*same, *near, *parts)), None)


def letters(name: str) -> str:
    """``name`` in small letters, without dashes, underscores and blanks.

    Example:
        >>> letters("IMTL-G")
        'imtlg'
    """
    return re.sub(r"[\W_]+", "", name.lower())


def did_you_mean(found: object, known: Iterable[str]) -> str:
    """A suggestion to put behind what was found; empty if nothing is near.

    Example:
        >>> did_you_mean("helth", ["rul", "health"])
        " (did you mean 'health'?)"
    """
    near = nearest(found, known)
    return "" if near is None else f" (did you mean {near!r}?)"


def is_regularizer(name: str) -> bool:
    """Whether a loss is called as regularizers are: a KL term, an entropy bonus, a penalty.

    Example:
        >>> [is_regularizer(name) for name in ("kl", "entropyBonus", "weight_decay", "router_loss")]
        [True, True, True, True]
        >>> [is_regularizer(name) for name in ("cross_entropy", "reg_box", "health")]
        [False, False, False]
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {word.lower() for word in words}
    return bool(found & REGULARIZERS) and not found & {"cross", "crossentropy"}
