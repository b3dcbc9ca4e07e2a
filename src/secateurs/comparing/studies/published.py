"""The published numbers a study of ours stands beside."""

from __future__ import annotations

from secateurs.report import Table

__all__ = ["SOURCE", "published_table"]

SOURCE = "Is Oracle Pruning the True Oracle? (2024): LeNet5-Mini (three convolutions of 10 filters) on MNIST"

# Layer, ratio, Kendall's tau between the train loss before and the test accuracy after retraining, anomaly ratio in per cent.
_LENET5_MINI = (
    ("conv1", 0.2, -0.60, 4.4), ("conv1", 0.4, -0.48, 2.4), ("conv1", 0.6, -0.41, 5.2), ("conv1", 0.8, 0.24, 57.8),
    ("conv2", 0.2, -0.76, 6.7), ("conv2", 0.4, -0.61, 0.0), ("conv2", 0.6, -0.42, 49.5), ("conv2", 0.8, -0.44, 4.4),
    ("conv3", 0.2, -0.71, 0.0), ("conv3", 0.4, -0.58, 24.8), ("conv3", 0.6, -0.47, 20.5), ("conv3", 0.8, -0.09, 20.0),
    ("conv1 + conv2", 0.5, -0.05, 24.0), ("conv1 + conv3", 0.5, -0.01, 68.1), ("conv2 + conv3", 0.5, -0.26, 13.6),
    ("all three", 0.5, -0.14, 20.6),
)  # fmt: skip


def published_table() -> Table:
    """A line per layer and ratio."""
    lines = tuple((layer, f"{100 * ratio:g} %", f"{tau:+.2f}", f"{share:.1f} %") for layer, ratio, tau, share in _LENET5_MINI)
    return Table(("layers", "filters removed", "Kendall tau", "sets better than the oracle"), (lines,), caption=f"{SOURCE}.")
