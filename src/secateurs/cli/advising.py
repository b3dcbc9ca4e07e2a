"""``secateurs advise``: what would become faster on this machine, and what would not."""

from __future__ import annotations

from collections.abc import Sequence

from secateurs.cli.examples import example_of
from secateurs.cli.opening import Source
from secateurs.cli.showing import dump, facts, show, stages
from secateurs.report import Table
from secateurs.train.advice import RATIOS, Advice, LayerAdvice, advise

__all__ = ["advise_model"]

_SHOWN = 12  # layers in the table


def advise_model(source: Source, inputs: Sequence[str], said: Sequence[str], ratios: Sequence[float],
                 as_json: bool) -> None:  # fmt: skip
    """Open, measure and print; structures are ``said`` one by one or with commas between."""
    structures = tuple(word.strip() for text in said for word in text.split(","))
    with stages(2) as at:
        at.begin("opening")
        opened = source.open()
        example = example_of(opened.model, inputs)
        at.begin("measuring")
        found = advise(opened.model, example, structures=structures or ("groups",), ratios=ratios or RATIOS)
    if as_json:
        dump({"model": str(source.path), **found.as_data()})
        return
    _show(found)


def _show(found: Advice) -> None:
    ratios = [point.ratio for point in found.points]
    heads = ("layer", "operator", "calls", "time", *(f"{ratio:.0%} off" for ratio in ratios), "round to")
    lines = tuple(_line(layer, ratios) for layer in found.layers[:_SHOWN])
    show(Table(heads, (lines,), left=2))
    hidden = len(found.layers) - _SHOWN
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    facts({
        **({"not shown": f"{hidden} layers more, which take less time; --json lists all"} if hidden > 0 else {}),
        "dense": f"{1e3 * found.seconds:.3g} ms (spread {1e3 * found.iqr:.2g} ms), {threads} on {found.device}",
    })  # fmt: skip
    for line in found.lines():
        print(f"- {line}")


def _line(layer: LayerAdvice, ratios: Sequence[float]) -> tuple[str, ...]:
    gains = (f"{layer.seconds / layer.removed[ratio]:.2f}x" for ratio in ratios)
    rounding = "" if layer.round_to is None else str(layer.round_to)
    return layer.name, layer.operator, str(layer.calls), f"{1e3 * layer.seconds:.3g} ms", *gains, rounding
