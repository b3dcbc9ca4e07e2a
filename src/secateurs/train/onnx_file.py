"""Remove whole structures from an ONNX file, without the framework it came from: read, score, choose, cut, verify, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs.apply.masking import masked_tensors
from secateurs.apply.onnx import cut, verify_cut
from secateurs.apply.verify import Verification
from secateurs.core.criteria import Criterion
from secateurs.errors import BadInput
from secateurs.files import write_whole
from secateurs.graph.groups import Graph
from secateurs.graph.onnx import trace_onnx, weights
from secateurs.planning.budgets import budget_of
from secateurs.planning.choose_groups import Cutting, choose_groups, cut_groups, forced, keeps_of
from secateurs.planning.group_scores import Scoring, score_groups
from secateurs.planning.groups import GroupEntry, GroupPlan, members
from secateurs.planning.onnx_costs import onnx_costs
from secateurs.recipe import Recipe
from secateurs.train.structured import settled_structures

__all__ = ["PrunedOnnx", "plan_onnx", "prune_onnx"]


@dataclass(frozen=True)
class PrunedOnnx:
    """What :func:`prune_onnx` gives back.

    Attributes:
        model: the smaller ``onnx.ModelProto``.
        plan: what was removed.
        report: a row per group and for the total.
        recipe: with the method's defaults filled in.
        verification: that it computes what the dense model does with the removed indices set to zero.
        graph: the dense model's groups.
        path: the file it was written to.
    """

    model: Any
    plan: GroupPlan
    report: list[dict[str, object]]
    recipe: Recipe
    verification: Verification
    graph: Graph = field(repr=False)
    path: Path | None = None


def prune_onnx(source: Any, method: str | Recipe = "magnitude", *, out: str | Path | None = None,
               inputs: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None, overwrite: bool = False,
               **settings: Any) -> PrunedOnnx:  # fmt: skip
    """Remove structures (``"channels"``, or ``structures=[...]``) from an ONNX model, and verify it with onnxruntime.

    ``settings`` are the fields of :class:`secateurs.Recipe`, as for :func:`secateurs.prune`. The file is left as it is.

    Args:
        source: a file, or an ``onnx.ModelProto``.
        method: a criterion that needs no gradients, as ``"magnitude"`` and ``"random"``, or a structure.
        out: the file to write.
        inputs: name -> array to run it on, or a shape to draw one of; multiply-adds are counted on it.
        sizes: name of a size that may change at run time -> what it is in the first run.
        overwrite: replace ``out``.

    Raises:
        BadInput: before anything is written: the model cannot be read or run, nothing may go, the budget is out of reach, the
            criterion needs gradients, or ``out`` exists.
        CorruptFile: it is no valid ONNX model.
        BrokenPromise: the smaller model does not compute what the masked one does; nothing is written.
    """
    path = None if out is None else _target(Path(out).expanduser(), overwrite)
    graph, recipe, planned = _plan(source, Recipe.of(method, settings), inputs, sizes)
    smaller = cut(graph, planned.keeps)
    verification = verify_cut(graph, planned.keeps, smaller, seed=recipe.seed).require()
    if path is not None:
        write_whole(path, smaller.SerializeToString())
    return PrunedOnnx(smaller, planned, planned.report(), recipe, verification, graph, path)


def plan_onnx(source: Any, method: str | Recipe = "magnitude", *, inputs: Mapping[str, Any] | None = None,
              sizes: Mapping[str, int] | None = None, **settings: Any) -> GroupPlan:  # fmt: skip
    """What :func:`prune_onnx` with the same arguments would remove; raises what it raises."""
    return _plan(source, Recipe.of(method, settings), inputs, sizes)[2]


def _target(path: Path, overwrite: bool) -> Path:
    if path.suffix != ".onnx":
        raise BadInput(f"out={str(path)!r}: an ONNX model is written to a file, name it .onnx")
    if path.is_dir() or (path.exists() and not overwrite):
        raise BadInput(f"out={str(path)!r} exists: give another name, or overwrite")
    if not path.parent.is_dir():
        raise BadInput(f"out={str(path)!r}: there is no folder {str(path.parent)!r}")
    return path


def _check_possible(recipe: Recipe, criterion: Criterion) -> None:
    if criterion.needs - {"noise"}:
        raise BadInput(f"criterion={criterion.name!r} needs {' and '.join(sorted(criterion.needs))}, which an ONNX file cannot "
                       "give: it holds no backward pass. Use 'magnitude' or 'random', or prune before the export")  # fmt: skip
    if criterion.blocks is not None:
        raise BadInput(f"criterion={criterion.name!r} judges layers by their inputs, which are not collected of an ONNX file: "
                       "use 'magnitude' or 'random', or prune before the export")  # fmt: skip
    if recipe.recovery not in (None, "none"):
        raise BadInput(f"recovery={recipe.recovery!r} works on PyTorch modules: recover before the export, or leave it out")
    if recipe.latency is not None:
        raise BadInput(f"latency={recipe.latency!r}: an ONNX file is not measured layer by layer; give flops=, params= or "
                       "bytes=")  # fmt: skip


def _plan(source: Any, said: Recipe, inputs: Mapping[str, Any] | None, sizes: Mapping[str, int] | None,
          ) -> tuple[Graph, Recipe, GroupPlan]:  # fmt: skip
    if not said.structures:
        raise BadInput("of an ONNX file whole structures can be removed: name some, as in prune('model.onnx', 'channels', "
                       "ratio=0.3)")  # fmt: skip
    recipe, method = settled_structures(said)
    budget, criterion = budget_of(recipe), method.criterion(recipe.criterion or "magnitude")
    _check_possible(recipe, criterion)
    scoring = Scoring(criterion, recipe.aggregate or "sum", recipe.normalize or "none", recipe.power, seed=recipe.seed)
    cutting = Cutting(recipe.scope or "local", recipe.round_to or 1, 1 if recipe.least is None else recipe.least)
    graph = trace_onnx(source, inputs=inputs, sizes=sizes)
    groups = choose_groups(graph, recipe)
    costs, parents = onnx_costs(graph, [group.name for group in groups]), {g.name: g for g in graph.groups}
    above = {group.name: group.parent for group in groups if group.parent is not None}
    tensors, steps = weights(graph), recipe.steps or 1
    keeps, counts = dict[str, Tensor](), dict[str, int]()
    for step in range(1, steps + 1):
        left = masked_tensors(graph, keeps, tensors)
        scores = forced(score_groups(groups, left, scoring, lambda _: {}, parents), keeps, above)
        counts = cut_groups(groups, scores, cutting, budget, costs, progress=Fraction(step, steps))
        keeps = keeps_of(groups, scores, counts)
    entries = tuple(GroupEntry(g.name, g.kind, g.size, counts[g.name], members(g)) for g in groups)
    return graph, recipe, GroupPlan(entries, keeps, costs(), costs(counts), graph.frozen, recipe.to_dict())
