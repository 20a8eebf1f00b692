"""The strategy of Flower; where Flower is not installed, only making one fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gaba.domains.federated import ClientWeights, Round, merge, update_norm

if TYPE_CHECKING:
    FedAvg = Any
else:
    try:
        from flwr.serverapp.strategy import FedAvg
    except ImportError as error:
        _absence = error

        class FedAvg:
            """Stands in for Flower's strategy and says what is missing."""

            def __init__(self, **_: Any) -> None:
                raise ImportError(
                    "BalancedFedAvg is a strategy of Flower, which is not installed: "
                    'pip install "gaba[flwr]"'
                ) from _absence


log = logging.getLogger(__name__)


@final
class BalancedFedAvg(FedAvg):
    """Flower's FedAvg with clients weighted by inverse update norm instead of their examples.

    The new model is that of the round plus gain · Σ_k λ_k Δ_k, with λ_k and the gain from
    `ClientWeights` and Δ_k against the model that the round sent out. All else is FedAvg's:
    sampling, messages, metrics (still averaged by the number of examples), evaluation.

    A client that returns an error, nothing, arrays of another shape, or NaN is left out, logged,
    and named in ``rounds[-1].left_out``; a round without any usable client leaves the model as it
    is.

    Args:
        client_weights: The rule; ``ClientWeights()`` if not given.
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
        >>> strategy.aggregate_train(1, [])  # nobody has answered: the model stays as it is
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
        """FedAvg's messages; the model that they carry is kept to measure the updates against."""
        self._sent = _numpy(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """The model and the metrics of the clients that take part, or None for both."""
        models: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        norms: dict[int, float] = {}
        left_out: dict[int, str] = {}
        replies = [*replies]
        usable: dict[int, Any] = {}
        for reply in replies:
            client = reply.metadata.src_node_id
            try:
                models[client] = self._model_of(reply)
                norms[client] = update_norm(self._sent, models[client])
                usable[client] = reply
            except ValueError as problem:
                left_out[client] = str(problem)
        examples = {client: self._examples_of(reply) for client, reply in usable.items()}
        beliefs = self.rounds[-1].beliefs if self.rounds else None
        seen = self.client_weights.weigh(norms, examples, beliefs)
        seen = replace(seen, left_out={**left_out, **seen.left_out})
        self.rounds.append(seen)
        for client, reason in seen.left_out.items():
            log.warning("round %d leaves client %s out: %s", server_round, client, reason)
        if not seen.weights:
            return None, None
        used = [reply for client, reply in usable.items() if client in seen.weights]
        self._check_and_log_replies([*used, *filter(_failed, replies)], is_train=True)
        metrics = self.train_metrics_aggr_fn(
            [reply.content for reply in used], self.weighted_by_key
        )
        return _record(merge(self._sent, models, seen.weights, seen.gain)), metrics

    def _model_of(self, reply: Any) -> dict[str, np.ndarray[Any, Any]]:
        if reply.has_error():
            raise ValueError(f"error {reply.error.code}: {reply.error.reason}")
        records = [*reply.content.array_records.values()]
        if len(records) != 1 or not records[0]:
            raise ValueError("no arrays in the answer")
        self._examples_of(reply)
        return _numpy(records[0])

    def _examples_of(self, reply: Any) -> float:
        records = [*reply.content.metric_records.values()]
        found = records[0].get(self.weighted_by_key) if len(records) == 1 else None
        if not isinstance(found, int | float) or not found > 0:
            raise ValueError(f"{self.weighted_by_key} must be a positive number, found {found!r}")
        return float(found)


def _failed(reply: Any) -> bool:
    return reply.has_error()


def _numpy(arrays: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.asarray(array.numpy()) for name, array in arrays.items()}


def _record(arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    from flwr.app import Array, ArrayRecord  # pyright: ignore[reportMissingImports]

    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
