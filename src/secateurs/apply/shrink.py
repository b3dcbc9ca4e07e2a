"""Shrink: a smaller model that computes what the masked one does, of the user's own class wherever that can be shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import fx, nn

from secateurs.apply.attributes import PROPOSALS, Sizes, groups_left, propose, set_layers, sizes_seen
from secateurs.apply.configs import rebuilt
from secateurs.apply.masking import kept_positions, kept_statistics, masked_model
from secateurs.apply.norms import repair, sharpen
from secateurs.apply.patching import check_plain, pieces, resize
from secateurs.apply.programs import as_module, free_batch
from secateurs.apply.rewriting import places, program_of, rewrite
from secateurs.apply.running import double, largest_difference, outputs, resized, tolerance
from secateurs.apply.slicing import check_keeps, slice_tensors
from secateurs.errors import BadInput
from secateurs.formats import note_changes
from secateurs.graph.groups import Graph, Keeps

__all__ = ["Shrunk", "shrink"]


@dataclass(frozen=True)
class Shrunk:
    """What :func:`shrink` made.

    Attributes:
        model: The smaller model: of the user's class, or the exported program where that one could not be shown to be right.
        is_exported: Whether ``model`` is the program, which takes inputs of the traced sizes only, but for the batch where two
            others came out right.
        why: Why it is; empty for a model of the user's class.
        program: The smaller program, whatever ``model`` is.
        repaired: RMS norms over a cut width, which now carry the old width in weight and eps.
        recounted: Layer and group norms over a cut width, whose statistics are over the kept entries now.
        ordinary: Whether a Hugging Face ``model`` is rebuilt by its (changed) configuration alone.
    """

    model: nn.Module
    is_exported: bool
    why: str
    program: fx.GraphModule
    repaired: tuple[str, ...] = ()
    recounted: tuple[str, ...] = ()
    ordinary: bool = False
    parameters: int = 0


def shrink(model: nn.Module, graph: Graph, keeps: Keeps, *, example: Any = None) -> Shrunk:
    """A new, smaller model: ``model`` without the indices of ``graph``'s groups that ``keeps`` leaves out.

    The traced program over the smaller tensors is made first; every shape in it is checked before it runs. Then a copy of
    ``model`` is given the same tensors, and the attributes that speak of their sizes; it is returned if, in float64, it
    computes what the program does on ``example`` and on a random one of the same shapes. Otherwise the program is.

    Args:
        model: What ``graph`` was traced from; it is not changed.
        graph: From :func:`secateurs.graph.trace`.
        keeps: Group name -> kept indices. Groups it does not name stay whole.
        example: A tensor, a tuple of arguments or a mapping of them; by default what ``graph`` was traced with.

    Raises:
        BadInput: ``keeps`` cannot be carried out, ``model`` is not what was traced, or holds tensors that are quantised,
            parametrised or otherwise not plain.
    """
    check_plain(model)
    check_keeps(graph, keeps)
    old = pieces(model, graph)
    tensors = slice_tensors(graph, keeps, old)
    where, program = places(graph, keeps), program_of(graph)
    seen, groups = sizes_seen(graph, program, where, model), groups_left(program, where)
    program = rewrite(graph, keeps, tensors, program)
    smaller, homeless = resize(model, graph, keeps)
    set_layers(smaller, groups)
    norms = kept_statistics(graph, keeps)
    positions = partial(kept_positions, graph, keeps)
    repaired = repair(model, smaller, norms, positions)
    trial = _Trial(program, example_of(graph) if example is None else example,
                   lambda twin: sharpen(model, twin, repaired, positions))  # fmt: skip
    why = f"{homeless[0]!r} is a constant that only the traced program has" if homeless else ""
    config = None if why else rebuilt(model, smaller, trial.problem)
    if config is not None:
        smaller = config
    elif not why:
        why = _settle(smaller, seen, trial)
    as_module(program)
    if why:
        free_batch(program, masked_model(double(model), graph, keeps), trial.cases[0][0])
    result = program if why else smaller
    if not why and config is None:
        note_changes(model, result)
    return Shrunk(
        model=result,
        is_exported=bool(why),
        why=why,
        program=program,
        repaired=() if why else tuple(repaired),
        recounted=tuple(n for n in norms if n not in repaired),
        ordinary=config is not None,
        parameters=sum(p.numel() for p in result.parameters()),
    )


def example_of(graph: Graph) -> Any:
    """What ``graph`` was traced with, as one example: the arguments, or the mapping where there were only keywords."""
    args, kwargs = graph.program.example_inputs or ((), {})
    if args and kwargs:
        raise BadInput("the graph was traced with both positional and keyword arguments: give example= as one mapping")
    return dict(kwargs) if kwargs else tuple(args)


class _Trial:
    """The program's outputs on two inputs, to compare candidates with."""

    def __init__(self, program: fx.GraphModule, example: Any, sharpen: Callable[[nn.Module], None]) -> None:
        self.sharpen = sharpen
        reference = double(program)
        self.cases = [(case, outputs(reference, case)) for case in (example, resized(example))]

    def problem(self, candidate: nn.Module) -> str:
        """How ``candidate`` differs from the program; empty when it does not."""
        try:
            twin = double(candidate)
            self.sharpen(twin)
            found = [outputs(twin, case) for case, _ in self.cases]
        except Exception as error:  # the user's code, on sizes it may not expect
            return f"its own code fails on the smaller sizes: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        for (ours, exact), (_, (theirs, _)) in zip(found, self.cases, strict=True):
            gap = largest_difference(ours, theirs)
            if not gap <= tolerance(exact):
                return f"with the smaller tensors its outputs differ from the traced program's by {gap:.3g}"
        return ""


def _settle(smaller: nn.Module, seen: Sizes, trial: _Trial) -> str:
    """Find attributes under which ``smaller`` agrees with the program; why none do, or nothing."""
    problem = ""
    for accept, changed in PROPOSALS:
        undo = propose(smaller, seen, accept, changed)
        found = trial.problem(smaller)
        if not found:
            return ""
        problem = problem or found
        for path, values in undo.items():
            for attribute, value in values.items():
                setattr(smaller.get_submodule(path), attribute, value)
    return problem
