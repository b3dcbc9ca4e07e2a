"""Products: a contraction makes the two contracted dimensions the same, everything else passes through."""

from __future__ import annotations

from secateurs.graph.axes import ONE, Dim
from secateurs.graph.calls import Call, Dims, broadcast

__all__ = ["RULES"]


def linear(call: Call) -> Dims:
    """``x [..., I]``, ``W [O, I]``, ``b [O]``."""
    x, weight, bias = call.dims("input"), call.dims("weight"), call.dims("bias")
    call.unify(x[-1], weight[-1])
    call.role("weight", len(weight) - 1, "in")
    if len(weight) == 1:
        return x[:-1]
    call.role("weight", 0, "out")
    call.kind(weight[0], "neurons")
    if bias:
        call.unify(bias[0], weight[0])
        call.role("bias", 0, "bias")
    return [*x[:-1], weight[0]]


def matmul(call: Call) -> Dims:
    """``matmul``, ``mm``, ``bmm``, ``mv``, ``dot``: vectors, matrices, or batches of matrices that broadcast."""
    return _product(call, "self", next(name for name in ("mat2", "other", "vec", "tensor") if call.has(name)))


def _product(call: Call, left: str, right: str) -> Dims:
    a, b = call.dims(left), call.dims(right)
    inner = max(len(b) - 2, 0)
    call.unify(a[-1], b[inner])
    call.role(left, len(a) - 1, "in")
    call.role(right, inner, "in")
    if len(a) > 1:
        call.role(left, len(a) - 2, "out")
    if len(b) > 1:
        call.role(right, len(b) - 1, "out")
    batch = broadcast([a[:-2], b[:-2]], call.node.name)
    _name(call, left, right, batch)
    return [*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else [])]


def _name(call: Call, left: str, right: str, batch: list[Dim]) -> None:
    """Batches of a parameter are experts; batches of two activations that multiply are attention heads."""
    of_model = [name for name in (left, right) if (value := call.typed(call[name])) and value.origin]
    for name in of_model:
        for i in range(len(call.dims(name)) - 2):
            call.role(name, i, "out")
    if of_model:
        call.kind(call.dims(of_model[0])[-1], "neurons")
    for dim in batch:
        call.kind(dim, "experts" if of_model else "heads")
    if not of_model and batch:
        call.kind(call.dims(left)[-1], "head-dims")
        call.kind(call.dims(right)[-1], "head-dims")


def addmm(call: Call) -> Dims:
    """``addmm``, ``addbmm``, ``baddbmm``: a product and a term that broadcasts against it."""
    left, right = ("mat1", "mat2") if call.has("mat1") else ("batch1", "batch2")
    out = _product(call, left, right)
    own = call.dims("self")
    broadcast([out, own], call.node.name)
    if len(own) == 1:
        call.role("self", 0, "bias")
    return out


def einsum(call: Call) -> Dims:
    """Every letter is one dimension; letters that do not come out are contracted."""
    inputs, _, output = call["equation"].replace(" ", "").partition("->")
    operands = call.listed("tensors")
    terms = inputs.split(",")
    if not output and "->" not in call["equation"]:
        letters = sorted(set(inputs) - set(",."))
        output = ("..." if "..." in inputs else "") + "".join(c for c in letters if inputs.count(c) == 1)
    seen: dict[str, Dim] = {}
    rest: list[Dims] = []
    for node, term, dims in zip(call["tensors"], terms, operands, strict=True):
        rest.append(_einsum_term(call, node, term, dims, seen, output))
    ellipsis = broadcast(rest, call.node.name)
    out: Dims = []
    for piece in output.replace("...", "."):
        out.extend(ellipsis if piece == "." else [seen[piece]])
    return out


def _einsum_term(call: Call, node: object, term: str, dims: Dims, seen: dict[str, Dim], output: str) -> Dims:
    """Unify the letters of one operand with those seen before; returns what its ellipsis stands for."""
    before, dots, after = term.partition("...")
    covered = len(dims) - len(before) - len(after)
    named = [*zip(before, range(len(before)), strict=True)]
    named += [*zip(after, range(len(before) + covered, len(dims)), strict=True)]
    for letter, i in named:
        seen[letter] = broadcast([[seen.get(letter, ONE)], [dims[i]]], call.node.name)[0]
        call.role_of(call.typed(node), i, "out" if letter in output else "in")
    return dims[len(before) : len(before) + covered] if dots else []


def grouped(call: Call) -> Dims:
    """Rows sorted by expert, each run times its own matrix: ``x [T, I]``, ``W [E, I, O]`` give ``[T, O]``."""
    left, right = ("self", "mat2") if call.has("self") else ("input", "weight")
    x, weight = call.dims(left), call.dims(right)
    if len(x) != 2 or len(weight) != 3:
        call.freeze([*x, *weight], "a grouped product of another form")
        return [call.fresh(n, "a grouped product of another form") for n in call.shape]
    call.unify(x[1], weight[1])
    call.role(right, 1, "in")
    call.role(right, 2, "out")
    call.kind(weight[2], "neurons")
    call.kind(weight[0], "experts")
    call.freeze([x[0], weight[0]], "experts that data chooses")
    return [x[0], weight[2]]


def similarity(call: Call) -> Dims:
    """``cosine_similarity``: a product over one dimension, in which zero entries do not count."""
    dims = broadcast([call.dims("x1"), call.dims("x2")], call.node.name)
    at = call["dim"] % len(dims)
    return [dim for i, dim in enumerate(dims) if i != at]


def outer(call: Call) -> Dims:
    """Two vectors."""
    return [*call.dims("self"), *call.dims("vec2")]


RULES = {
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul"), matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), addmm),
    **dict.fromkeys(("_grouped_mm", "transformers::grouped_mm_fallback"), grouped),
    "einsum": einsum,
    "cosine_similarity": similarity,
    "outer": outer,
}
