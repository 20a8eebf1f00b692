"""Methods that a compiler of the whole step calls as they are instead of looking inside."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(method: F) -> F:
    """``method``, at which ``torch.compile`` of what calls it breaks the graph, once.

    It takes gradients and notes on the graph, which a compiler cannot follow. What
    ``torch.compiler.disable`` does, without importing the compiler before anybody uses it.
    """
    as_it_is: list[Any] = []  # made once the compiler is there

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return method(*args, **kwargs)
        if not as_it_is:
            import torch._dynamo

            as_it_is.append(torch._dynamo.disable(method))
        return as_it_is[0](*args, **kwargs)

    setattr(run, "_torchdynamo_disable", True)  # noqa: B010  # the compiler's own mark
    return run  # pyright: ignore[reportReturnType]
