"""What a run's model costs: counts, bytes, multiply-adds, latency beside the dense model, memory of a training step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.comparing.running.data import Split
from secateurs.comparing.running.task import Ready
from secateurs.comparing.spec import Point
from secateurs.core.count import removed_count
from secateurs.errors import BadInput
from secateurs.measure import compare_latency, multiply_adds, narrowest, payload_bytes, peak_memory, sizes, stored_bytes
from secateurs.measure.mode import evaluating, to_device
from secateurs.planning import Plan, choose_weights
from secateurs.recipe import Recipe

__all__ = ["costs", "most_bytes", "rival_width", "use", "work_of"]

REPEATS, WARMUP = 20, 3  # of the latency: a run of seconds must not be measured for long
Use = tuple[tuple[Any, ...], dict[str, Any]]


def costs(ready: Ready, model: nn.Module, threads: int) -> dict[str, Any]:
    """The fields of a row that are measured on the finished ``model``.

    Multiply-adds, latency and memory need to know what the model is called with: see :func:`use`; they are None without.
    """
    dense, size = ready.fresh(0), sizes(model)
    own, full = work_of(ready, model), work_of(ready, dense)
    return {
        "parameters": size.parameters,
        "nonzero": size.nonzero,
        "bytes": stored_bytes(_tensors(model)),
        "dense_bytes": payload_bytes(dense),
        "multiply_adds": None if own is None else own[1],
        "dense_multiply_adds": None if full is None else full[0],
        "latency": _latency(ready, model, dense, threads),
        "peak_memory_bytes": _peak(ready, model),
    }


def use(ready: Ready, examples: int) -> Use | None:
    """Arguments to call a model of the task with: ``examples`` of the test split without their labels.

    What is not a split of ``(*inputs, labels)`` or mappings may say it itself: ``data["example"]``, a function of the number
    of examples that returns a tensor, a tuple of inputs or a mapping of named ones. None where there is neither.
    """
    own, test = ready.data.get("example"), ready.data.get("test")
    if callable(own):
        found = to_device(own(examples), ready.device)
    elif isinstance(test, Split):
        batch = test.batch(torch.arange(min(examples, len(test))))
        found = batch if isinstance(batch, Mapping) else tuple(batch)[: max(1, len(batch) - 1)]
    else:
        return None
    if isinstance(found, Mapping):
        return (), dict(found)
    return (tuple(found) if isinstance(found, (tuple, list)) else (found,)), {}


def work_of(ready: Ready, model: nn.Module) -> tuple[int, int] | None:
    """Multiply-adds of one example: dense, and with non-zero weights only. None if nothing is known of the model's inputs.

    Raises:
        BadInput: the model does not take the examples.
    """
    example = use(ready, 1)
    if example is None:
        return None
    try:
        found = multiply_adds(model, *example[0], **example[1])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BadInput(f"task {ready.task.name!r}: the model does not take an example of data['test'] without its last entry "
                       f"({type(error).__name__}: {error}); give data['example'], a function of the number of examples "
                       "that returns the model's inputs") from error  # fmt: skip
    return found.dense, found.nonzero


def most_bytes(ready: Ready, point: Point | None) -> int:
    """The most bytes the task's model can have when pruned to ``point``, however the zeros are shared out.

    Every selected tensor as one bit per entry and its values: with the smaller of that and dense it can only be less.
    """
    model = ready.fresh(0)
    chosen = choose_weights(model, Recipe.from_dict(dict(ready.task.selection)), trained=False)
    if point is not None and point.compression is not None:
        removed = removed_count(chosen.total, 1 - 1 / point.compression)
    elif point is not None and point.sparsity is not None:
        removed = sum(removed_count(w.size, point.sparsity) for w in chosen.weights)
        removed = min(removed, removed_count(chosen.size, point.sparsity))
    else:
        raise BadInput(f"task {ready.task.name!r}: small-dense needs an operating point with a sparsity or a compression")
    each = {w.name: w.parameter.element_size() for w in chosen.weights}
    mask = sum((w.size + 7) // 8 for w in chosen.weights)
    return min(payload_bytes(model), payload_bytes(model) + mask - min(each.values()) * removed)


def rival_width(ready: Ready, point: Point | None) -> float:
    """The narrowest of the task's widths whose dense model has at least :func:`most_bytes`.

    Raises:
        BadInput: the task has no widths, or none is large enough.
    """
    if not ready.task.widths:
        raise BadInput(f"task {ready.task.name!r}: small-dense chooses among widths:, and the task has none")
    return narrowest(lambda width: _shaped(ready, width), ready.task.widths, most_bytes(ready, point))


def _shaped(ready: Ready, width: float) -> nn.Module:
    """A model of which only shapes are wanted: without memory where the factory allows it."""
    try:
        with torch.device("meta"):
            return ready.factory(**ready.task.model_options, width=width)
    except Exception:  # whatever a factory does with values that are not there
        return ready.fresh(0, width)


def masked_work(ready: Ready, plan: Plan) -> tuple[int, int] | None:
    """:func:`work_of` under the masks of ``plan``, whatever values the weights will have."""
    model = ready.fresh(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)  # an initial zero is no pruned weight
    plan.replay(model, undoable=False)
    return work_of(ready, model)


def _latency(ready: Ready, model: nn.Module, dense: nn.Module, threads: int) -> dict[str, Any] | None:
    example = use(ready, ready.task.latency_batch)
    if example is None:
        return None
    args, named = example
    calls = {"own": lambda: model(*args, **named), "dense": lambda: dense(*args, **named)}
    with evaluating(model), evaluating(dense):
        found = compare_latency(calls, repeats=REPEATS, warmup=WARMUP, threads=threads, device=ready.device)
    own, full = found["own"], found["dense"]
    return {"median_s": own.median_s, "iqr_s": own.iqr_s, "dense_median_s": full.median_s, "dense_iqr_s": full.iqr_s,
            "batch": ready.task.latency_batch, "threads": own.threads, "repeats": len(own.runs)}  # fmt: skip


def _peak(ready: Ready, model: nn.Module) -> int | None:
    """Bytes of the tensors of one training step's forward and backward pass, on a copy."""
    twin, train = copy.deepcopy(model).train(), ready.data["train"]
    twin.zero_grad(set_to_none=True)
    if ready.train is None:
        batch = train.batch(torch.arange(ready.task.batch))

        def step() -> None:
            with torch.autocast(ready.device.type, torch.bfloat16, enabled=ready.task.autocast):
                loss = ready.loss(twin, batch)
            loss.backward()

        return peak_memory(step, ready.device)
    example = use(ready, ready.task.batch)
    if example is None:
        return None
    return peak_memory(lambda: _some_loss(twin(*example[0], **example[1])).backward(), ready.device)


def _some_loss(output: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(output if isinstance(output, (Tensor, tuple, list, dict)) else dict(output))
    return sum((t.float().mean() for t in leaves if isinstance(t, Tensor) and t.requires_grad), torch.zeros(()))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
