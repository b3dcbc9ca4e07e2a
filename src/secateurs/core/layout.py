"""Which dimension of a weight is output and which is input."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Dimension indices of a weight tensor.

    Linear ``[out, in]`` and convolution ``[out, in, kh, kw]`` have the default; a transposed convolution or GPT-2's
    ``Conv1D`` has ``Layout(out_dim=1, in_dim=0)``; stacked experts ``[experts, out, in]`` have ``Layout(1, 2)``.
    """

    out_dim: int = 0
    in_dim: int = 1
