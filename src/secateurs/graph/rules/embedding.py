"""Tables looked up by number, and tensors made from nothing."""

from __future__ import annotations

from secateurs.graph.calls import Call, Dims

__all__ = ["RULES"]


def embedding(call: Call) -> Dims:
    """``W [V, E]`` and numbers ``[...]`` give ``[..., E]``; the vocabulary stays."""
    weight, numbers = call.dims("weight"), call.dims("indices")
    call.freeze([weight[0]], "a vocabulary")
    call.freeze(numbers, "a sequence")
    call.role("weight", 1, "out")
    call.kind(weight[1], "width")
    return [*numbers, weight[1]]


def one_hot(call: Call) -> Dims:
    """Numbers ``[...]`` give ``[..., n]``, a class each."""
    return [*call.dims("self"), call.fresh(call.shape[-1], "classes")]


def constant(call: Call) -> Dims | list[Dims]:
    """One value everywhere: any size will do, so the axes are free."""
    out = [[call.fresh(n) for n in shape] for shape in call.outputs]
    return out[0] if len(out) == 1 else [*out]


def numbered(call: Call) -> Dims | list[Dims]:
    """Values that depend on the position: the axes are frozen."""
    call.freeze([d for value in call.tensors() for d in value.dims], "its positions are numbered")
    out = [[call.fresh(n, "its positions are numbered") for n in shape] for shape in call.outputs]
    return out[0] if len(out) == 1 else [*out]


def triangle(call: Call) -> Dims:
    """``tril``, ``triu``: the last two dimensions are numbered."""
    dims = call.dims("self")
    call.freeze(dims[-2:], "its positions are numbered")
    return dims


def diagonal(call: Call) -> Dims:
    """Freeze everything: positions of two dimensions meet."""
    dims = call.dims("self")
    call.freeze(dims, "its positions are numbered")
    return [call.fresh(n, "its positions are numbered") for n in call.shape]


CONSTANT = "zeros ones full empty scalar_tensor new_zeros new_ones new_full new_empty empty_strided new_empty_strided"
NUMBERED = "arange linspace logspace eye rand randn randint randperm range tril_indices triu_indices rand_like randn_like "
NUMBERED += "uniform normal bernoulli exponential random multinomial "
NUMBERED += "nonzero unique unique2 _unique2 unique_consecutive bincount histc searchsorted bucketize"
RULES = {
    "embedding": embedding,
    "one_hot": one_hot,
    **dict.fromkeys(CONSTANT.split(), constant),
    **dict.fromkeys(NUMBERED.split(), numbered),
    **dict.fromkeys(("tril", "triu"), triangle),
    **dict.fromkeys(("diagonal", "diag", "diag_embed"), diagonal),
}
