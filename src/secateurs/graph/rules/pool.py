"""Operators over space: channels pass, the spatial dimensions are frozen; pixel shuffles; unfold."""

from __future__ import annotations

from collections.abc import Callable

from secateurs.graph.axes import multiply, size
from secateurs.graph.calls import Call, Dims
from secateurs.graph.rules.conv import SPATIAL

__all__ = ["RULES"]


def _spatial(call: Call, rank: int) -> Dims | list[Dims]:
    """The last ``rank`` dimensions are frozen, and new; whatever lies before passes."""
    x = call.dims("self" if call.has("self") else "input")
    call.freeze(x[len(x) - rank :], SPATIAL)
    out: list[Dims] = []
    for shape in call.outputs:
        out.append([*x[: len(x) - rank], *[call.fresh(n, SPATIAL) for n in shape[len(shape) - rank :]]])
    return out[0] if len(out) == 1 else out


def over(rank: int) -> Callable[[Call], Dims | list[Dims]]:
    """The rule of an operator over the last ``rank`` dimensions."""

    def spatial(call: Call) -> Dims | list[Dims]:
        return _spatial(call, rank)

    return spatial


def pixel_shuffle(call: Call) -> Dims:
    """``C x r x r`` channels become ``C`` channels of ``r`` times the size; the inner ``r`` are positions in space."""
    x, r = call.dims("self"), call["upscale_factor"]
    channels = call.fresh(call.shape[-3])
    call.unify(x[-3], multiply([channels, call.fresh(r, SPATIAL), call.fresh(r, SPATIAL)]))
    return [*x[:-3], channels, *[call.fresh(n, SPATIAL) for n in call.shape[-2:]]]


def pixel_unshuffle(call: Call) -> Dims:
    """``C`` channels become ``C x r x r`` of a fraction of the size."""
    x, r = call.dims("self"), call["downscale_factor"]
    channels = multiply([x[-3], call.fresh(r, SPATIAL), call.fresh(r, SPATIAL)])
    return [*x[:-3], channels, *[call.fresh(n, SPATIAL) for n in call.shape[-2:]]]


def channel_shuffle(call: Call) -> Dims:
    """``G x c`` channels in the order ``c x G``."""
    x = call.dims("self")
    group, inside = call.fresh(call["groups"]), call.fresh(size(x[1]) // call["groups"])
    call.unify(x[1], multiply([group, inside]))
    return [x[0], multiply([inside, group]), *x[2:]]


def im2col(call: Call) -> Dims:
    """``C`` channels become ``C x k`` rows, a column per place."""
    x = call.dims("self")
    call.freeze(x[-2:], SPATIAL)
    rows, columns = call.shape[-2:]
    return [*x[:-3], multiply([x[-3], call.fresh(rows // size(x[-3]), SPATIAL)]), call.fresh(columns, SPATIAL)]


def col2im(call: Call) -> Dims:
    """``C x k`` rows become ``C`` channels."""
    x = call.dims("self")
    call.freeze(x[-1:], SPATIAL)
    channels = call.fresh(call.shape[-3])
    call.unify(x[-2], multiply([channels, call.fresh(size(x[-2]) // call.shape[-3], SPATIAL)]))
    return [*x[:-2], channels, *[call.fresh(n, SPATIAL) for n in call.shape[-2:]]]


def grid_sample(call: Call) -> Dims:
    """Channels pass; the places are those of the grid."""
    x, grid = call.dims("input"), call.dims("grid")
    call.freeze([*x[2:], *grid], SPATIAL)
    return [*x[:2], *[call.fresh(n, SPATIAL) for n in call.shape[2:]]]


def unfold(call: Call) -> Dims:
    """Windows along one dimension, as a new last one."""
    dims = call.dims("self")
    at = call["dimension"] % len(dims)
    call.freeze([dims[at]], SPATIAL)
    return [
        *[call.fresh(n, SPATIAL) if i == at else dims[i] for i, n in enumerate(call.shape[:-1])],
        call.fresh(call.shape[-1], SPATIAL),
    ]


POOLS = ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d",
         "_adaptive_avg_pool{}d", "reflection_pad{}d", "replication_pad{}d", "max_unpool{}d",
         "upsample_nearest{}d")  # fmt: skip
RESIZES = {"upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2, "upsample_trilinear3d": 3,
           "_upsample_bilinear2d_aa": 2, "_upsample_bicubic2d_aa": 2, "_upsample_nearest_exact1d": 1,
           "_upsample_nearest_exact2d": 2, "_upsample_nearest_exact3d": 3}  # fmt: skip
RULES = {
    **{name.format(rank): over(rank) for name in POOLS for rank in (1, 2, 3)},
    **{name: over(rank) for name, rank in RESIZES.items()},
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "im2col": im2col,
    "col2im": col2im,
    "grid_sampler": grid_sample,
    "grid_sampler_2d": grid_sample,
    "grid_sampler_3d": grid_sample,
    "unfold": unfold,
}
