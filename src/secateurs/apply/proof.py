"""Proof that a shrunk model computes what the dense one does with the removed indices at zero."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.apply.masking import kept_positions, kept_statistics, masked_model, masked_program
from secateurs.apply.norms import sharpen
from secateurs.apply.patching import pieces
from secateurs.apply.running import double, largest_difference, outputs, resized, tolerance
from secateurs.apply.shrink import Shrunk, example_of
from secateurs.apply.slicing import slice_tensors
from secateurs.apply.verify import Check, Verification
from secateurs.errors import BadInput
from secateurs.graph.groups import Graph, Keeps

__all__ = ["batches", "kept_parameters", "stretched", "verify_shrunk"]


def verify_shrunk(dense: nn.Module, shrunk: Shrunk | nn.Module, graph: Graph, keeps: Keeps, example: Any = None, *,
                  seed: int = 0) -> Verification:  # fmt: skip
    """Check ``shrunk`` against ``dense`` with everything that leaves set to zero, in float64.

    Compared are the outputs on ``example``, on random inputs of its shapes and, for what takes them, of another
    batch and, where ``dense`` takes them, of other spatial or sequence sizes. Layer and group norms over a cut width are
    compared with statistics over the entries that stay; RMS norms are repaired, so theirs are the dense ones. Parameters are
    counted: the sum over the tensors of the products of what each dimension keeps.

    Args:
        dense: The model before, which ``graph`` was traced from.
        shrunk: What :func:`secateurs.apply.shrink` made, or its model.
        keeps: Group name -> kept indices, as they were given to ``shrink``.
        example: A tensor, a tuple of arguments or a mapping; by default what ``graph`` was traced with.
        seed: Of the random inputs.

    Raises:
        BadInput: ``keeps`` cannot be carried out on ``dense``, or a model does not run on the example.
    """
    model = shrunk.model if isinstance(shrunk, Shrunk) else shrunk
    example = example_of(graph) if example is None else example
    own = isinstance(model, type(dense))
    compare = _Compare(dense, model, graph, keeps, own)
    checks = [_count(dense, model, graph, keeps), compare.example(example, "the example"),
              compare.example(resized(example, seed=seed), "random inputs like it")]  # fmt: skip
    if own:
        checks += compare.others(example, seed)
    elif not getattr(model, "validate_inputs", True):
        checks += compare.batches(example, seed)
    return Verification(tuple(checks))


def kept_parameters(dense: nn.Module, graph: Graph, keeps: Keeps) -> int:
    """How many parameters stay: each tied one counts once."""
    old = dict(dense.named_parameters())
    left = slice_tensors(graph, keeps, old)
    return sum(left[name].numel() for name in old)


def _count(dense: nn.Module, model: nn.Module, graph: Graph, keeps: Keeps) -> Check:
    expected, found = kept_parameters(dense, graph, keeps), sum(p.numel() for p in model.parameters())
    detail = f"{found} parameters" + ("" if found == expected else f", promised {expected}")
    return Check("exact counts", found == expected, detail)


class _Compare:
    """The masked dense model, as program and as module, beside the smaller one."""

    def __init__(self, dense: nn.Module, model: nn.Module, graph: Graph, keeps: Keeps, own: bool) -> None:
        norms = kept_statistics(graph, keeps)
        self.norms = [name for name in norms if isinstance(_find(dense, name), (nn.LayerNorm, nn.GroupNorm))]
        self.smaller = double(model)
        if own:
            sharpen(dense, self.smaller, norms, partial(kept_positions, graph, keeps))
        self.program = double(masked_program(graph, keeps, pieces(dense, graph)))
        self.masked = masked_model(double(dense), graph, keeps, self.smaller if own else None)

    def example(self, case: Any, what: str) -> Check:
        """The smaller model against the masked program, on sizes the program was traced with."""
        return self._check(f"outputs equal the masked model's on {what}", self.program, case)

    def _check(self, name: str, reference: nn.Module, case: Any) -> Check:
        theirs, fine = outputs(reference, case)
        ours, exact = outputs(self.smaller, case)
        allowed = tolerance(fine, exact)
        gap = largest_difference(ours, theirs)
        detail = f"largest difference {gap:.3g} of the largest output, {allowed:g} allowed"
        if self.norms:
            detail += f"; statistics of {len(self.norms)} norms over what stays"
        return Check(name, gap <= allowed, detail)

    def others(self, example: Any, seed: int) -> list[Check]:
        """Other batch and spatial sizes, where the dense module takes them."""
        theirs, exact = outputs(self.masked, example)
        reference, fine = outputs(self.program, example)
        if not largest_difference(theirs, reference) <= tolerance(exact, fine):
            reason = "a norm is a function of the code, and cannot be told to span less outside the traced program"
            return [Check("other sizes", True, f"not compared: {reason}")]
        found = [self._first(cases) for cases in (batches(example, seed), stretched(example, seed))]
        return [check for check in found if check is not None]

    def batches(self, example: Any, seed: int) -> list[Check]:
        """Another batch, for a program that takes it."""
        found = self._first(batches(example, seed))
        return [] if found is None else [found]

    def _first(self, cases: Iterator[tuple[str, Any]]) -> Check | None:
        for what, case in cases:
            try:
                outputs(self.masked, case)
            except Exception:  # the user's code: sizes the dense model does not take prove nothing
                continue
            return self._check(f"outputs equal the masked model's on {what}", self.masked, case)
        return None


def _find(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _tensors(example: Any) -> list[Tensor]:
    found = [t for t in tree_leaves(example) if isinstance(t, Tensor) and t.ndim]
    if not found:
        raise BadInput("the example holds no tensor")
    return found


def batches(example: Any, seed: int) -> Iterator[tuple[str, Any]]:
    """Batches one larger and twice as large, of random inputs, each with what it is."""
    size = len(_tensors(example)[0])
    for batch in (size + 1, 2 * size):
        yield f"a batch of {batch}", resized(example, batch=batch, seed=seed + 1)


def stretched(example: Any, seed: int) -> Iterator[tuple[str, Any]]:
    """Images half as large again or twice, sequences one longer or twice; a dimension of channels fails in the dense model."""
    first = max(_tensors(example), key=lambda t: t.ndim)
    whole = tuple(dict.fromkeys(first.shape[2:])) if first.ndim >= 4 else ()
    options: list[dict[int, int]] = []
    if whole:
        options += [{n: n + n // 2 for n in whole}, {n: 2 * n for n in whole}]
    else:
        options += [{first.shape[d]: n} for d in range(1, first.ndim) for n in (first.shape[d] + 1, 2 * first.shape[d])]
    for stretch in options:
        sizes = " and ".join(f"{new} for {old}" for old, new in stretch.items())
        yield f"other sizes ({sizes})", resized(example, stretch=stretch, seed=seed + 2)


