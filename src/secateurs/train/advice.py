"""What would become faster, measured on this machine: single operators at smaller widths, and the whole model cut for real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from secateurs.apply.shrink import shrink
from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput
from secateurs.graph.groups import Group
from secateurs.measure.latency import Latency, calling, compare_latency
from secateurs.measure.mode import device_of, evaluating, to_device
from secateurs.measure.widths import ROUNDINGS, TimeTable, best_rounding
from secateurs.planning.latency_costs import Layer, layers
from secateurs.planning.multiply_adds import operator_name
from secateurs.recipe import Recipe
from secateurs.train.structured import Run

__all__ = ["Advice", "LayerAdvice", "Point", "advise"]

RATIOS = (0.25, 0.5, 0.75)
_FASTER = 1.05  # below this, a gain is not worth the name


@dataclass(frozen=True)
class Point:
    """The whole model with ``ratio`` of every group removed: median seconds and spread, and the shares left of its counts."""

    ratio: float
    seconds: float
    iqr: float
    multiply_adds: float
    parameters: float


@dataclass(frozen=True)
class LayerAdvice:
    """One operator at one shape, which occurs ``calls`` times, first as ``name``.

    Attributes:
        seconds: of all its calls in the dense model.
        share: of the dense model's time.
        removed: seconds of all its calls by the share removed of every group.
        round_to: the multiple its width is worth rounding to; None where none was tried (a narrow layer, or whole heads).
    """

    name: str
    operator: str
    shape: str
    calls: int
    seconds: float
    share: float
    removed: Mapping[float, float]
    round_to: int | None = None

    @property
    def shrinks(self) -> bool:
        """Whether it gains anything from what was tried."""
        return self.seconds > _FASTER * min(self.removed.values(), default=self.seconds)


@dataclass(frozen=True)
class Advice:
    """What :func:`advise` found.

    Attributes:
        seconds: of the dense model, the median; ``iqr`` is the spread.
        points: the whole model, cut.
        layers: by the time they take, longest first.
        round_to: the multiple to give as ``round_to=``.
        threads: with which torch computed, on ``device``.
    """

    seconds: float
    iqr: float
    points: tuple[Point, ...]
    layers: tuple[LayerAdvice, ...]
    round_to: int
    threads: int
    device: str

    @property
    def faster(self) -> bool:
        """Whether the whole model becomes faster at any ratio tried, by more than the spread of its runs."""
        return any(self.gains(point) for point in self.points)

    def gains(self, point: Point) -> bool:
        """Whether ``point`` is faster than the dense model, by more than five in a hundred and than the spread."""
        return self.seconds > _FASTER * point.seconds and self.seconds - point.seconds > max(self.iqr, point.iqr)

    def lines(self) -> list[str]:
        """The findings as sentences."""
        said = [_of_point(self, point) for point in self.points]
        said.append(f"round widths to multiples of {self.round_to}" if self.round_to > 1 else "rounding widths gains nothing")
        rest = 1 - sum(layer.share for layer in self.layers)
        if rest > 0.2:
            said.append(f"{rest:.0%} of the time is not in these layers: it does not fall with their widths")
        stiff = [layer.name for layer in self.layers if not layer.shrinks and layer.share > 0.02]
        if stiff:
            said.append(f"no faster when narrower: {', '.join(stiff[:4])}" + (" ..." if len(stiff) > 4 else ""))
        said.append("zeros in tensors of unchanged size gain no time: dense kernels multiply them too")
        return said

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data."""
        found = asdict(self)
        for row in found["layers"]:
            row["removed"] = {str(ratio): seconds for ratio, seconds in row["removed"].items()}
        return {**found, "faster": self.faster, "lines": self.lines()}


def _of_point(advice: Advice, point: Point) -> str:
    counts = f"{point.multiply_adds:.0%} of the multiply-adds and {point.parameters:.0%} of the parameters left"
    times = f"{1e3 * advice.seconds:.3g} ms to {1e3 * point.seconds:.3g} ms"
    gain = f"{advice.seconds / point.seconds:.2f}x faster" if advice.gains(point) else "NOT faster on this machine"
    return f"{point.ratio:.0%} of every group removed: {gain}, {times} ({counts})"


def advise(model: nn.Module, example: Any, *, structures: Sequence[str] = ("groups",), ratios: Sequence[float] = RATIOS,
           repeats: int = 20) -> Advice:  # fmt: skip
    """Measure here, layer by layer and whole, what removing structures from ``model`` would gain in time.

    The model is cut for real at every ratio (smallest magnitudes of every group) and timed in turns with the dense one, in
    evaluation mode on ``example``. Nothing of ``model`` changes.

    Args:
        model: any module that can be traced.
        example: a tensor, a tuple of arguments or a mapping of them; its batch size is the one that is timed.
        structures: which may go, as in :func:`secateurs.prune`.
        ratios: shares removed.
        repeats: timed runs of each.

    Raises:
        BadInput: the model cannot be traced, or nothing of it may go; the message says why.
    """
    shares = [check_sparsity(ratio, "ratios") for ratio in ratios]
    if not shares:
        raise BadInput("ratios is empty: give the shares to try, as (0.25, 0.5)")
    run = Run.of(model, Recipe("magnitude", structures=tuple(structures), ratio=shares[0], scope="local"), example)
    plans = {share: run.at(share).plan() for share in shares}
    smaller = {str(s): shrink(run.model, run.graph, plan.keeps, example=example).model for s, plan in plans.items()}
    timed = _times({"dense": run.model, **smaller}, example, repeats)
    dense = timed["dense"]
    points = tuple(
        Point(s, timed[str(s)].median_s, timed[str(s)].iqr_s, plan.after.multiply_adds / plan.before.multiply_adds,
              plan.after.parameters / plan.before.parameters) for s, plan in plans.items()
    )  # fmt: skip
    counts = {s: {e.name: e.kept for e in plan.entries} for s, plan in plans.items()}
    found = _layers(run, counts, dense.median_s)
    return Advice(dense.median_s, dense.iqr_s, points, found, _rounding(found), dense.threads, dense.device)


def _times(models: Mapping[str, nn.Module], example: Any, repeats: int) -> dict[str, Latency]:
    """All of them in turns, in evaluation mode."""
    device = device_of(models["dense"])
    example = to_device(example, device)
    with ExitStack() as stack:
        for one in models.values():
            stack.enter_context(evaluating(one))
        calls = {name: calling(one, example) for name, one in models.items()}
        return compare_latency(calls, repeats=repeats, device=device)


def _layers(run: Run, counts: Mapping[float, Mapping[str, int]], whole: float) -> tuple[LayerAdvice, ...]:
    """Operators of equal calls together, the slowest first."""
    table, same = TimeTable(device_of(run.model)), dict[Any, list[Layer]]()
    for layer in layers(run.graph, list(run.costs.whole)):
        same.setdefault((layer.call(run.costs.whole), *(layer.call(kept) for kept in counts.values())), []).append(layer)
    rows = [_advice(run, alike, counts, whole, table) for alike in same.values()]
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _advice(run: Run, alike: Sequence[Layer], counts: Mapping[float, Mapping[str, int]], whole: float, table: TimeTable,
            ) -> LayerAdvice:  # fmt: skip
    layer, calls = alike[0], len(alike)
    dense = layer.call(run.costs.whole)
    seconds = calls * table.seconds(dense)
    removed = {ratio: calls * table.seconds(layer.call(kept)) for ratio, kept in counts.items()}
    shapes = " ".join("x".join(map(str, argument.shape)) for argument in dense.arguments if hasattr(argument, "shape"))
    rounding = _widths(run, layer, table) if layer.counted and seconds > 0.02 * whole else None
    name = operator_name(layer.node.target)
    return LayerAdvice(layer.name, name, shapes, calls, seconds, seconds / whole, removed, rounding)


def _widths(run: Run, layer: Layer, table: TimeTable) -> int | None:
    """Which multiple the widest group of single positions it depends on is worth rounding to."""
    depends = layer.shapes.groups(layer.node)
    single = [g for g in run.groups if g.name in depends and _single(g) and g.size >= 2 * ROUNDINGS[-1]]
    if not single:
        return None
    widest = max(single, key=lambda group: group.size)
    top = (widest.size // 2) // ROUNDINGS[-1] * ROUNDINGS[-1] + ROUNDINGS[-1]
    tried = [top, top - 16, top - 8, top - 4, top - 3]
    return best_rounding([(w, table.seconds(layer.call({**run.costs.whole, widest.name: w}))) for w in tried])


def _single(group: Group) -> bool:
    return all(piece.index.shape[1] == 1 for piece in group.slices if piece.role in ("out", "in"))


def _rounding(found: Sequence[LayerAdvice]) -> int:
    """The multiple that the layers which take most of the time are worth."""
    weight: dict[int, float] = {}
    for layer in found:
        if layer.round_to is not None:
            weight[layer.round_to] = weight.get(layer.round_to, 0.0) + layer.seconds
    return max(weight, key=lambda multiple: weight[multiple]) if weight else 1
