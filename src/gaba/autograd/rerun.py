"""The calls of the shared module made again, leaving everything behind as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils._pytree import tree_leaves

from gaba.autograd.graph import LossGraph
from gaba.autograd.marks import Call, Mark, mark_of
from gaba.autograd.shared import SharedModule


@final
@dataclass(frozen=True)
class Rerun:
    """Those calls of the shared module in this step whose results the losses use.

    Attributes:
        module: the shared module.
        parameters: θ, its parameters that are trainable now.
        calls: the calls by number.
        marks: for each feature, which tensor of which call it is.
        edges: the features, as places in the graph.
    """

    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    calls: Mapping[int, Call]
    marks: tuple[Mark, ...]
    edges: tuple[GradientEdge, ...]

    @staticmethod
    def at(graph: LossGraph, edges: Sequence[GradientEdge] | None) -> Rerun | None:
        """The calls behind ``edges`` of ``graph``, or ``None`` if they cannot be made again.

        That is so without a sound boundary, where the features come from elsewhere than from a
        forward hook that kept its calls, where somebody has written into an input since, and where
        the call was made with other parameters than the module's own.
        """
        shared = graph.shared
        if edges is None or not isinstance(shared, SharedModule) or not graph.theta:
            return None
        marks = [mark_of(edge, shared.key) for edge in edges]
        found = tuple(mark for mark in marks if mark is not None)
        calls = {m.call: m.kept for m in found if m.kept is not None}
        known = len(found) == len(edges) and all(m.call in calls for m in found)
        if not known or not all(call.repeatable(shared.module) for call in calls.values()):
            return None
        return Rerun(shared.module, graph.theta, calls, found, tuple(edges))

    @property
    def lowered(self) -> bool:
        """Whether autocast made these calls coarser than the parameters are."""
        kinds = {kind for call in self.calls.values() for kind in call.autocast.values()}
        fine = all(torch.finfo(p.dtype).bits >= 32 for p in self.parameters)
        return fine and any(torch.finfo(kind).bits < 32 for kind in kinds)

    def outside_autocast(self) -> Rerun:
        """The same calls in the precision of the parameters; features are computed, not kept.

        A difference of two features in bfloat16 is mostly rounding. In float32 it is not.
        """
        calls = {number: call.outside_autocast() for number, call in self.calls.items()}
        marks = tuple(replace(mark, value=None) for mark in self.marks)
        return replace(self, calls=calls, marks=marks)

    def step(self, steps: Mapping[torch.dtype, float]) -> float:
        """The largest of ``steps`` among those of the dtypes that the calls compute in."""
        kinds = {p.dtype for p in self.parameters}
        kinds |= {kind for call in self.calls.values() for kind in call.autocast.values()}
        kinds |= {mark.value.dtype for mark in self.marks if mark.value is not None}
        if _rounds_to_tf32(self.module, self.parameters):
            kinds.add(torch.float16)  # which keeps as many bits
        return max(steps.get(kind.to_real(), 0.0) for kind in kinds)

    def values(self) -> list[Tensor]:
        """z, the features: as they were returned, or run again if somebody wrote into them."""
        kept = [m.value for m in self.marks if m.value is not None and _untouched(m)]
        drifts = any(call.drifts(self.module) for call in self.calls.values())
        return kept if len(kept) == len(self.marks) and not drifts else self()

    def __call__(self) -> list[Tensor]:
        """The features from the same calls, without graph, with the parameters as they are now.

        Masks of dropout, and all that is drawn from torch's generators, are those of the first
        time, and so is autocast. Afterwards the generators and the buffers are as before; our own
        hooks take note of nothing, as no graph is built.
        """
        outputs: dict[int, list[object]] = {}
        with torch.no_grad(), _own_buffers(self.module):
            for number, call in self.calls.items():
                with _as_in(call):
                    outputs[number] = tree_leaves(self.module(*call.args, **call.kwargs))
        found = [outputs[mark.call][mark.position] for mark in self.marks]
        return [tensor for tensor in found if isinstance(tensor, Tensor)]


def _rounds_to_tf32(module: nn.Module, parameters: Sequence[Tensor]) -> bool:
    """Whether a GPU may round factors to 10 bits: in convolutions and RNNs that is the default."""
    if not any(p.device.type == "cuda" and p.dtype == torch.float32 for p in parameters):
        return False
    if torch.get_float32_matmul_precision() != "highest":
        return True
    of_cudnn = (nn.RNNBase, *(getattr(nn, f"Conv{n}d") for n in (1, 2, 3)))
    return torch.backends.cudnn.allow_tf32 and any(
        isinstance(m, of_cudnn) for m in module.modules()
    )


@contextmanager
def swapped(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts ``parameters`` hold ``values``; then, whatever happens, their own again.

    Nothing is written into the parameters: they are lent other memory. So they come back bit for
    bit, and the graph, which refers to them, sees no change. Parameters that lie side by side in
    one block of memory (the weights of an RNN on a GPU) do so here as well.
    """
    own = [p.data for p in parameters]
    try:
        for p, value in zip(parameters, _side_by_side(own, values), strict=True):
            p.data = value
        yield
    finally:
        for p, data in zip(parameters, own, strict=True):
            p.data = data


def _side_by_side(own: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """``values``, laid out in memory as ``own`` is."""
    placed = [
        value if value.stride() == like.stride() else torch.empty_like(like).copy_(value)
        for value, like in zip(values, own, strict=True)
    ]
    blocks: dict[int, list[int]] = {}
    for i, tensor in enumerate(own):
        blocks.setdefault(tensor.untyped_storage()._cdata, []).append(i)
    for members in blocks.values():
        if len(members) == 1 or _overlap([own[i] for i in members]):
            continue
        block = own[members[0]].untyped_storage().clone()
        for i in members:
            like = own[i]
            place = torch.empty(0, dtype=like.dtype, device=like.device)
            place.set_(block, like.storage_offset(), like.size(), like.stride())
            placed[i] = place.copy_(values[i])
    return placed


def _overlap(tensors: Sequence[Tensor]) -> bool:
    if len({t.dtype for t in tensors}) > 1 or not all(t.is_contiguous() for t in tensors):
        return True
    spans = sorted((t.storage_offset(), t.storage_offset() + t.numel()) for t in tensors)
    return any(a[1] > b[0] for a, b in pairwise(spans))


@contextmanager
def _own_buffers(module: nn.Module) -> Iterator[None]:
    """While it lasts ``module`` has copies for buffers, which it may write into or replace."""
    places = [(m._buffers, dict(m._buffers)) for m in module.modules()]
    copies = {id(b): b.clone() for _, saved in places for b in saved.values() if b is not None}
    try:
        for buffers, saved in places:
            buffers.update({n: None if b is None else copies[id(b)] for n, b in saved.items()})
        yield
    finally:
        for buffers, saved in places:
            buffers.clear()
            buffers.update(saved)


@contextmanager
def _as_in(call: Call) -> Iterator[None]:
    """The random numbers and the autocast of ``call``.

    Autocast keeps no copies of parameters here: one from the first time would hide that they are
    others now, and one from now would outlive them.
    """
    devices = [torch.device(name) for name in call.random if name != "cpu"]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        torch.set_rng_state(call.random["cpu"])
        for device in devices:
            torch.cuda.set_rng_state(call.random[str(device)], device)
        for kind in ("cpu", "cuda"):
            dtype = call.autocast.get(kind)
            if dtype is not None or torch.is_autocast_enabled(kind):
                on = dtype is not None
                stack.enter_context(torch.autocast(kind, dtype, enabled=on, cache_enabled=False))
        yield


def _untouched(mark: Mark) -> bool:
    return mark.value is not None and mark.value._version == mark.version
