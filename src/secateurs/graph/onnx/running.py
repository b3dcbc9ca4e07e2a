"""Running an ONNX model on the CPU with onnxruntime, exactly as it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["TOLERANCES", "Feeds", "largest_difference", "random_feeds", "run", "tolerance"]

Feeds = Mapping[str, np.ndarray]
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Of each output's largest entry (or of one, if that is larger), by the coarsest numbers among the weights: products are summed
in another order, and onnxruntime computes in the model's own precision."""


def tolerance(weights: Iterable[np.ndarray]) -> float:
    """The one of the coarsest numbers among ``weights``."""
    return max((TOLERANCES.get(value.dtype.name, 0.0) for value in weights), default=0.0) or TOLERANCES["float32"]


def run(model: Any, feeds: Feeds, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The outputs of a ``ModelProto`` (those of ``names``, or all) by name; its graph is not optimised.

    Raises:
        BadInput: onnxruntime refuses it, with its reason.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        wanted = [output.name for output in session.get_outputs()] if names is None else list(names)
        return dict(zip(wanted, session.run(wanted, dict(feeds)), strict=True))
    except Exception as error:  # onnxruntime has a class of its own for each kind of failure
        raise BadInput(f"onnxruntime cannot run the model: {' '.join(str(error).split())[:400]}") from error


def random_feeds(feeds: Feeds, seed: int, most: int) -> dict[str, np.ndarray]:
    """Other inputs like ``feeds``: normal numbers, and in place of integers, which may be words, numbers below ``most``."""
    generator = np.random.default_rng(seed)
    return {name: _like(value, generator, most) for name, value in feeds.items()}


def _like(value: np.ndarray, generator: np.random.Generator, most: int) -> np.ndarray:
    if np.issubdtype(value.dtype, np.integer):
        constant = value.size and bool((value == value.flat[0]).all()) and value.flat[0] == 1 and most < 2
        return value if constant else generator.integers(0, max(most, 1), value.shape).astype(value.dtype)
    return value if value.dtype == bool else generator.standard_normal(value.shape).astype(value.dtype)


def largest_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """The largest difference of two runs, as a share of each output's largest entry where that is above one.

    Infinite where shapes differ, or where not both are finite at the same places.
    """
    return max((_difference(np.asarray(ours[name]), np.asarray(theirs[name])) for name in theirs), default=0.0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(1.0, float(np.abs(b[finite]).max())))
