"""The strategy of Flower; without Flower only making one fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gaba.domains._clients import ClientWeights, Round, merge, update_norm
from gaba.extras import library

if TYPE_CHECKING:
    FedAvg = Any
else:
    try:
        from flwr.serverapp.strategy import FedAvg
    except ImportError:

        class FedAvg:
            """Stands in for Flower's strategy and says what is missing."""

            def __init__(self, **_: Any) -> None:
                library("flwr.serverapp.strategy", "BalancedFedAvg needs", "flwr")


log = logging.getLogger(__name__)


@final
class BalancedFedAvg(FedAvg):
    """Flower's FedAvg with clients weighted by inverse update norm instead of their examples.

    The model moves by Σ_k m_k Δ_k, with m_k from `ClientWeights`. Sampling, messages, metrics and
    evaluation are FedAvg's. A client that returns an error, nothing, arrays of another shape, or
    NaN is left out, logged, and named in ``rounds[-1].left_out``. A round without any usable client
    leaves the model as it is.

    Args:
        client_weights: The rule; ``ClientWeights()`` by default.
        settings: Those of ``flwr.serverapp.strategy.FedAvg``, by name.

    Raises:
        ImportError: Flower is not installed.

    Example:
        >>> import pytest
        >>> flwr = pytest.importorskip("flwr")  # Flower has an environment of its own
        >>> from gaba.domains.federated import BalancedFedAvg, ClientWeights
        >>> strategy = BalancedFedAvg(ClientWeights(floor=0.1), fraction_train=0.5)
        >>> strategy.fraction_train, strategy.client_weights.floor, strategy.rounds
        (0.5, 0.1, [])
        >>> strategy.aggregate_train(1, [])  # nobody answered: the model stays as it is
        (None, None)
        >>> from flwr.app import ArrayRecord, ConfigRecord
        >>> silent = BalancedFedAvg(fraction_train=0.0)
        >>> list(silent.configure_train(1, ArrayRecord(), ConfigRecord(), grid=None))
        []
    """

    def __init__(self, client_weights: ClientWeights | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.client_weights: ClientWeights = client_weights or ClientWeights()
        self.rounds: list[Round[int]] = []
        self._sent: dict[str, np.ndarray[Any, Any]] = {}

    def configure_train(
        self, server_round: int, arrays: Any, config: Any, grid: Any
    ) -> Iterable[Any]:
        """FedAvg's messages; the model in them is kept to measure the updates against."""
        self._sent = _numpy(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """The model and the metrics of the clients that take part, or None for both."""
        replies = [*replies]
        models: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        norms: dict[int, float] = {}
        examples: dict[int, float] = {}
        left_out: dict[int, str] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            try:
                models[client], examples[client] = self._answer(reply)
                norms[client] = update_norm(self._sent, models[client])
            except ValueError as problem:
                left_out[client] = str(problem)
        beliefs = self.rounds[-1].beliefs if self.rounds else None
        seen = self.client_weights.weigh(norms, examples, beliefs)
        seen = replace(seen, left_out={**left_out, **seen.left_out})
        self.rounds.append(seen)
        for client, reason in seen.left_out.items():
            log.warning("round %d leaves client %s out: %s", server_round, client, reason)
        if not seen.multipliers:
            return None, None
        used = [reply for reply in replies if reply.metadata.src_node_id in seen.multipliers]
        failed = [reply for reply in replies if reply.has_error()]
        self._check_and_log_replies([*used, *failed], is_train=True)
        contents = [reply.content for reply in used]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return _record(merge(self._sent, models, seen.multipliers)), metrics

    def _answer(self, reply: Any) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
        """The model of a client, and how many examples it trained on."""
        if reply.has_error():
            raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
        arrays = [*reply.content.array_records.values()]
        if len(arrays) != 1 or not arrays[0]:
            raise ValueError("no arrays in the answer")
        metrics = [*reply.content.metric_records.values()]
        found = metrics[0].get(self.weighted_by_key) if len(metrics) == 1 else None
        if not isinstance(found, int | float) or not found > 0:
            raise ValueError(f"{self.weighted_by_key} must be a positive number, found {found!r}")
        return _numpy(arrays[0]), float(found)


def _numpy(arrays: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.asarray(array.numpy()) for name, array in arrays.items()}


def _record(arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    from flwr.app import Array, ArrayRecord  # pyright: ignore[reportMissingImports]

    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
