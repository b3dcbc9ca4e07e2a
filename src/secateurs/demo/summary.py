"""What came out, in words and as a page: computed from the rows, whichever way they point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateurs.demo.settings import Settings
from secateurs.report import (
    Figure,
    Metric,
    Page,
    Section,
    Table,
    contest,
    contest_table,
    curve_png,
    group,
    spread,
    verdict,
)
from secateurs.report.rows import Row
from secateurs.report.tables import Contest

__all__ = ["ACCURACY", "best_sparse", "findings", "make_figure", "make_page", "make_table"]

ACCURACY = Metric("accuracy", "test accuracy", "%", scale=100)
_NONZERO = Metric("nonzero", "non-zeros", digits=0, repeated=False)
_BYTES = Metric("bytes", "bytes", digits=0, repeated=False, higher_is_better=False)
_KILOBYTES = Metric("bytes", "payload of the saved file", "kB (logarithmic)", scale=1e-3, repeated=False)
_LATENCY = Metric("latency_s", "ms/batch", scale=1e3, digits=2, repeated=False, higher_is_better=False)
_VERDICTS = {"ahead": "ahead with every seed", "behind": "behind with every seed", "level": "level with every seed",
             "mixed": "ahead or not depending on the seed"}  # fmt: skip


def make_table(rows: Sequence[Row], latency: Row) -> Table:
    """The one table: a section per operating point, the sparse networks beside the dense one of as many bytes."""
    seeds = len(group(rows, "seed"))
    caption = (f"Mean ± sample standard deviation over {seeds} seeds. " if seeds > 1 else "One seed. ") + (
        "Removed is the share of the selected weights; vs dense is in points, seed by seed; bytes are those of the tensors "
        f"in the saved file; ms/batch is the median of {latency['repeats']} calls with {latency['batch']} images on one thread."
    )
    return contest_table(rows, ACCURACY, [_NONZERO, _BYTES, _LATENCY], corner="removed", caption=caption)


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences on accuracy at equal bytes, on size and on latency."""
    return [*map(_accuracy, contest(rows, ACCURACY)), _size(rows), _speed(rows)]


def best_sparse(rows: Sequence[Row]) -> Row:
    """The sparse run with the highest validation accuracy, of equals the smallest. The test images have no say."""
    return min((row for row in rows if row["method"] == "gmp"), key=lambda row: (-row["validation"], row["bytes"], row["seed"]))


def make_figure(rows: Sequence[Row]) -> Figure:
    """Accuracy against bytes, light and dark."""
    names = {"gmp": "pruned (GMP)", "dense": "small dense"}
    light, dark = (curve_png(rows, ACCURACY, _KILOBYTES, names=names, theme=theme) for theme in ("light", "dark"))
    alt = "Test accuracy against bytes of the saved file: a curve of pruned networks and one of small dense networks."
    caption = "Dots are single seeds, markers their means; beside them the share removed, or the width of the dense network."
    return Figure(light, dark, alt, caption)


def make_page(
    settings: Settings, table: Table, figure: Figure, sentences: Sequence[str], reload: tuple[bool, str], recipe: str
) -> Page:
    """The page of a finished experiment."""
    how = (
        "Data: scikit-learn's handwritten digits, 897 images to train, 360 to choose, 540 to test.",
        f"Every network, pruned or dense, trains for {settings.steps:,} steps with the same optimizer, batches and learning "
        "rates; a seed sets the initial weights and the order of the images.",
        "The dense rival is the narrowest network whose tensors take at least as many bytes as the sparse file.",
        "Pruning is gradual by magnitude while the network trains; the first convolution, norms and biases stay dense.",
    )
    return Page(
        "Pruned, or small and dense?",
        "A convolutional network pruned while it trains, against dense networks of as many bytes, on handwritten digits.",
        (
            Section("What came out", tuple(sentences)),
            Section("Accuracy at equal bytes", figure=figure),
            Section("All networks", table=table),
            Section("How it was run", how),
            Section("The recipe of the saved model", code=recipe),
        ),
        checks=(reload,),
        foot="Results: results.jsonl. Regenerate with: secateurs demo",
    )


def reload_sentence(outcome: dict[str, Any], best: Row) -> tuple[bool, str]:
    """Whether the reloaded model is the saved one, and that in words."""
    if "error" in outcome:
        return False, f"{best['label']} could not be reloaded in a new process: {outcome['error']}"
    equal = "equal" if outcome["equal"] else f"NOT equal, largest difference {outcome['difference']:.3g}"
    whole = outcome["nonzero"] == best["nonzero"]
    count = f"{outcome['nonzero']:,} non-zeros " + ("as saved" if whole else f"where {best['nonzero']:,} were saved")
    return outcome["equal"] and whole, (f"{best['label']}, seed {best['seed']}, reloaded in a new process: "
                                        f"outputs on {outcome['images']} test images {equal}; {count}")  # fmt: skip


def _accuracy(of: Contest) -> str:
    ours, rival = of.rows[0], of.rival[0]
    said = _VERDICTS[verdict(of.differences, ACCURACY)] if len(of.rows) > 1 else "one seed says little"
    return (f"{of.point} removed, {ours['bytes']:,} bytes: {ACCURACY.show_difference(of.differences)} points against "
            f"{rival['label']} of {rival['bytes']:,} bytes; {said}.")  # fmt: skip


def _size(rows: Sequence[Row]) -> str:
    small = min((row for row in rows if row["method"] == "gmp"), key=lambda row: row["bytes"])
    weights, size = small["nonzero"] / small["parameters"], small["bytes"] / _full(rows)["bytes"]
    return (f"The smallest sparse file keeps {weights:.0%} of the parameters in {size:.0%} of the dense bytes: "
            "a bit per weight says where the values belong, and norms stay whole.")  # fmt: skip


def _speed(rows: Sequence[Row]) -> str:
    """Whether zeros saved time: they did where a sparse network's median lies below the full one's by more than its spread."""
    dense = _full(rows)
    sparse = {label: spread(runs, "latency_s").mean for label, runs in group(r for r in rows if r["method"] == "gmp").items()}
    ratios = [f"{time / dense['latency_s']:.2f}" for time in (min(sparse.values()), max(sparse.values()))]
    noise = dense["latency_iqr_s"] / dense["latency_s"]
    said = (f"The sparse networks take {' to '.join(dict.fromkeys(ratios))} times the full dense network's time, "
            f"whose calls spread by {noise:.0%} (quartiles): ")  # fmt: skip
    faster = [label for label, time in sparse.items() if time < dense["latency_s"] - dense["latency_iqr_s"]]
    if faster:
        return said + f"less for {', '.join(faster)}, though dense kernels multiply zeros too: measure again."
    return said + "no gain, because dense kernels multiply zeros too. Zeros save bytes here; a narrower network saves time."


def _full(rows: Sequence[Row]) -> Row:
    return max((row for row in rows if row["method"] == "dense"), key=lambda row: row["bytes"])
