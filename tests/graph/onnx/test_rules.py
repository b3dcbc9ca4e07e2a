"""Every rule for an ONNX operator, by brute force: a tiny file per operator, both oracles on every group, the groups it has."""

# long because: one table with a row per operator

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from tests.graph.onnx.building import build, check, i, onnx, sizes, w

MLP = [("MatMul", "x a", "h"), ("MatMul", "h b", "y")]


def dense(*middle: Any, width: int = 6, after: int = 6, shape: Any = ("n", 3), opset: int = 18, **more: Any) -> Any:
    """``x`` times ``a``, the nodes from ``h`` to ``g``, then times ``b``."""
    nodes = [("MatMul", "x a", "h"), *middle, ("MatMul", "g b", "y")]
    return build(nodes, shape, opset, **{"a": w(3, width), "b": w(after, 2), **more})


def image(*middle: Any, width: int = 6, after: int = 6, size: int = 4, opset: int = 18, **more: Any) -> Any:
    """A convolution, the nodes from ``h`` to ``g``, a convolution."""
    nodes = [("Conv", "x a", "h"), *middle, ("Conv", "g b", "y")]
    weights = {"a": w(width, 3, 1, 1), "b": w(2, after, 1, 1)}
    return build(nodes, ("n", 3, size, size), opset, **{**weights, **more})


def recurrent(operator: str, gates: int, **attributes: Any) -> Any:
    """Two directions of four, their outputs side by side, then a product."""
    nodes = [
        (operator, "x w r b", "z", {"hidden_size": 4, "direction": "bidirectional", **attributes}),
        ("Transpose", "z", "t", {"perm": [0, 2, 1, 3]}),
        ("Reshape", "t s", "u"),
        ("MatMul", "u v", "y"),
    ]
    return build(
        nodes, (5, "n", 3), 14, w=w(2, gates * 4, 3), r=w(2, gates * 4, 4), b=w(2, gates * 8), s=i(0, 0, -1), v=w(8, 2)
    )


def computed_reshape() -> Any:
    """``[n, s, 6]`` as heads, with the sizes computed: Shape, Gather, Concat, Reshape; and scaled by the root of a width."""
    nodes = [
        ("MatMul", "x a", "h"),
        ("Shape", "h", "hs"),
        ("Gather", "hs zero", "n0"),
        ("Gather", "hs one", "s0"),
        ("Unsqueeze", "n0 zero1", "n1"),
        ("Unsqueeze", "s0 zero1", "s1"),
        ("Concat", "n1 s1 two1 three1", "to", {"axis": 0}),
        ("Reshape", "h to", "p"),
        ("Transpose", "p", "q", {"perm": [0, 2, 1, 3]}),
        ("Transpose", "q", "k", {"perm": [0, 1, 3, 2]}),
        ("MatMul", "q k", "m"),
        ("Shape", "q", "qs"),
        ("Gather", "qs last", "d"),
        ("Cast", "d", "df", {"to": 1}),
        ("Sqrt", "df", "root"),
        ("Div", "m root", "o"),
        ("Softmax", "o", "e", {"axis": -1}),
        ("MatMul", "e q", "c"),
        ("Transpose", "c", "f", {"perm": [0, 2, 1, 3]}),
        ("Concat", "n1 s1 six1", "back", {"axis": 0}),
        ("Reshape", "f back", "g"),
        ("MatMul", "g b", "y"),
    ]
    numbers = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "last": np.int64(3),
        "zero1": i(0),
        "two1": i(2),
        "three1": i(3),
        "six1": i(6),
    }
    return build(nodes, ("n", "s", 3), **numbers, a=w(3, 6), b=w(6, 2))


def grouped_queries() -> Any:
    """Four query heads on two key-value heads, written out by Unsqueeze, Expand and Reshape."""
    head = {"perm": [0, 2, 1, 3]}
    nodes = [
        ("MatMul", "x a", "q0"),
        ("Reshape", "q0 qs", "q1"),
        ("Transpose", "q1", "q", head),
        ("MatMul", "x k", "k0"),
        ("Reshape", "k0 ks", "k1"),
        ("Transpose", "k1", "k2", head),
        ("Unsqueeze", "k2 two", "k3"),
        ("Expand", "k3 many", "k4"),
        ("Reshape", "k4 all", "kk"),
        ("Transpose", "kk", "kt", {"perm": [0, 1, 3, 2]}),
        ("MatMul", "q kt", "m"),
        ("Softmax", "m", "e"),
        ("MatMul", "e kk", "c"),
        ("Transpose", "c", "f", head),
        ("Reshape", "f back", "g"),
        ("MatMul", "g b", "y"),
    ]
    numbers = {
        "qs": i(0, 0, 4, 3),
        "ks": i(0, 0, 2, 3),
        "two": i(2),
        "many": i(1, 1, 2, 1, 1),
        "all": i(0, 4, -1, 3),
        "back": i(0, 0, 12),
    }
    return build(nodes, ("n", 5, 3), **numbers, a=w(3, 12), k=w(3, 6), b=w(12, 2))


CASES: dict[str, tuple[Callable[[], Any], list[int]]] = {
    # products
    "matmul": (lambda: build(MLP, ("n", 3), a=w(3, 5), b=w(5, 2)), [5]),
    "gemm": (lambda: build([("Gemm", "x a c", "h"), ("Gemm", "h b", "y")], ("n", 3), a=w(3, 5), c=w(5), b=w(5, 2)), [5]),
    "gemm of transposed weights": (
        lambda: build(
            [("Gemm", "x a c", "h", {"transB": 1, "alpha": 0.5, "beta": 2.0}), ("Gemm", "h b", "y", {"transB": 1})],
            (2, 3),
            a=w(5, 3),
            c=w(1, 5),
            b=w(2, 5),
        ),
        [5],
    ),
    "gemm of a transposed input": (
        lambda: build(
            [("Gemm", "a x", "h", {"transA": 1, "transB": 1}), ("Gemm", "h b", "y", {"transA": 1})],
            (2, 3),
            a=w(3, 5),
            b=w(5, 4),
        ),
        [5],
    ),
    "matmul with a transposed weight": (
        lambda: dense(("Relu", "h", "r"), ("Transpose", "c", "ct"), ("MatMul", "r ct", "g"), c=w(4, 6), after=4),
        [4, 6],
    ),
    "einsum": (
        lambda: build(
            [("Einsum", "x a", "h", {"equation": "nsi,io->nso"}), ("Einsum", "h b", "y", {"equation": "nso,oc->nc"})],
            (2, 4, 3),
            a=w(3, 5),
            b=w(5, 2),
        ),
        [5],
    ),
    "convolution": (lambda: image(("Relu", "h", "g")), [6]),
    "grouped convolution": (lambda: image(("Conv", "h c", "g", {"group": 2}), c=w(8, 3, 1, 1), after=8), [2, 3, 4]),
    "depthwise convolution": (
        lambda: image(("Conv", "h c d", "g", {"group": 6, "pads": [1] * 4}), c=w(12, 1, 3, 3), d=w(12), after=12),
        [2, 6],
    ),
    "transposed convolution": (
        lambda: image(("ConvTranspose", "h c d", "g", {"strides": [2, 2]}), c=w(6, 4, 2, 2), d=w(4), after=4),
        [4, 6],
    ),
    "grouped transposed convolution": (
        lambda: image(("ConvTranspose", "h c", "g", {"group": 2}), c=w(6, 2, 1, 1), after=4),
        [2, 2, 3],
    ),
    # norms
    "batch norm": (lambda: image(("BatchNormalization", "h s t m v", "g"), s=w(6), t=w(6), m=w(6), v=abs(w(6))), [6]),
    "instance norm": (lambda: image(("InstanceNormalization", "h s t", "g"), s=w(6), t=w(6)), [6]),
    "layer norm": (lambda: dense(("LayerNormalization", "h s t", "g"), s=w(6), t=w(6)), [6]),
    "group norm per channel": (
        lambda: image(("GroupNormalization", "h s t", "g", {"num_groups": 2}), s=w(6), t=w(6), opset=21),
        [2, 3],
    ),
    "rms norm written out": (
        lambda: dense(
            ("Pow", "h two", "p"),
            ("ReduceMean", "p last", "m"),
            ("Add", "m eps", "e"),
            ("Sqrt", "e", "r"),
            ("Div", "h r", "n"),
            ("Mul", "n s", "g"),
            two=np.float32(2),
            last=i(-1),
            eps=np.float32(0.1),
            s=w(6),
        ),
        [6],
    ),
    "layer norm written out stays": (lambda: dense(("ReduceMean", "h", "m", {"axes": [1]}), ("Sub", "h m", "g"), opset=13), []),
    # element by element
    "bias and scale": (lambda: dense(("Add", "h c", "s"), ("Mul", "s d", "g"), c=w(6), d=w(6)), [6]),
    "broadcast of one": (lambda: dense(("MatMul", "x c", "o"), ("Mul", "h o", "g"), c=w(3, 1)), [6]),
    "sum of two": (lambda: dense(("MatMul", "x c", "o"), ("Add", "h o", "g"), c=w(3, 6)), [6]),
    "where": (lambda: dense(("Greater", "h c", "q"), ("Where", "q h c", "g"), c=w(6)), [6]),
    "prelu": (lambda: image(("PRelu", "h s", "g"), s=w(6, 1, 1)), [6]),
    "clip, cast, dropout": (
        lambda: dense(
            ("Clip", "h lo", "c"),
            ("Cast", "c", "d", {"to": 11}),
            ("Cast", "d", "e", {"to": 1}),
            ("Dropout", "e", "g"),
            lo=np.float32(0),
        ),
        [6],
    ),
    "gelu of onnxruntime": (
        lambda: dense(("com.microsoft.BiasGelu", "h c", "f"), ("com.microsoft.FastGelu", "f", "g"), c=w(6)),
        [6],
    ),
    # shapes
    "flatten": (
        lambda: build(
            [("Conv", "x a", "h"), ("Flatten", "h", "g"), ("Gemm", "g b", "y")], ("n", 3, 2, 2), a=w(5, 3, 1, 1), b=w(20, 2)
        ),
        [5],
    ),
    "flatten of a transposed one": (
        lambda: build(
            [
                ("Conv", "x a", "h"),
                ("Transpose", "h", "t", {"perm": [0, 2, 3, 1]}),
                ("Reshape", "t s", "g"),
                ("Gemm", "g b", "y"),
            ],
            ("n", 3, 2, 2),
            a=w(5, 3, 1, 1),
            s=i(-1, 20),
            b=w(20, 2),
        ),
        [5],
    ),
    "squeeze and unsqueeze": (lambda: dense(("Unsqueeze", "h two", "u"), ("Squeeze", "u two", "g"), two=i(2)), [6]),
    "squeeze and unsqueeze by attribute": (
        lambda: dense(("Unsqueeze", "h", "u", {"axes": [1]}), ("Squeeze", "u", "g", {"axes": [1]}), opset=11),
        [6],
    ),
    "sizes that are computed": (computed_reshape, [2, 3]),
    "grouped queries": (grouped_queries, [2, 2, 3]),
    "tile": (lambda: dense(("Tile", "h r", "g"), r=i(1, 2), after=12), [2, 6]),
    "channel shuffle": (
        lambda: image(
            ("Reshape", "h s", "p"),
            ("Transpose", "p", "t", {"perm": [0, 2, 1, 3, 4]}),
            ("Reshape", "t u", "q"),
            ("Conv", "q c", "g", {"group": 3}),
            s=i(0, 2, 3, 4, 4),
            u=i(0, 6, 4, 4),
            c=w(6, 2, 1, 1),
        ),
        [2, 2, 3],
    ),
    "depth to space, columns first": (
        lambda: image(("DepthToSpace", "h", "g", {"blocksize": 2, "mode": "CRD"}), width=12, after=3),
        [3],
    ),
    "depth to space, depth first": (
        lambda: image(("DepthToSpace", "h", "g", {"blocksize": 2, "mode": "DCR"}), width=12, after=3),
        [3],
    ),
    "space to depth": (lambda: image(("SpaceToDepth", "h", "g", {"blocksize": 2}), width=3, after=12), [3]),
    # parts
    "concat": (lambda: dense(("MatMul", "x c", "o"), ("Concat", "h o", "g", {"axis": -1}), c=w(3, 4), after=10), [4, 6]),
    "split by attribute": (
        lambda: dense(("Split", "h", "p q", {"axis": 1, "split": [3, 3]}), ("Mul", "p q", "g"), after=3, opset=11),
        [3],
    ),
    "split by input": (
        lambda: dense(("Split", "h s", "p q", {"axis": -1}), ("Concat", "q p", "g", {"axis": 1}), s=i(2, 4), opset=13),
        [2, 4],
    ),
    "split by number": (lambda: dense(("Split", "h", "p q", {"axis": 1, "num_outputs": 2}), ("Mul", "p q", "g"), after=3), [3]),
    "rotated halves": (
        lambda: dense(
            ("Slice", "h zero three one", "p"),
            ("Slice", "h three big one", "q"),
            ("Neg", "q", "r"),
            ("Concat", "r p", "t", {"axis": 1}),
            ("Mul", "t c", "u"),
            ("Add", "h u", "g"),
            zero=i(0),
            three=i(3),
            one=i(1),
            big=i(2**62),
            c=w(6),
        ),
        [3],
    ),
    "slice by attribute": (
        lambda: dense(
            ("Slice", "h", "p", {"starts": [0], "ends": [2], "axes": [1]}),
            ("Slice", "h", "q", {"starts": [2], "ends": [6], "axes": [1]}),
            ("Concat", "q p", "g", {"axis": 1}),
            opset=9,
        ),
        [2, 4],
    ),
    "every other one": (
        lambda: dense(
            ("Slice", "h zero big one two", "p"),
            ("Slice", "h one big one two", "q"),
            ("Mul", "p q", "g"),
            zero=i(0),
            one=i(1),
            two=i(2),
            big=i(99),
            after=3,
        ),
        [3],
    ),
    "one position of a sequence": (
        lambda: dense(("Gather", "h zero", "g", {"axis": 1}), zero=np.int64(0), shape=("n", 4, 3)),
        [6],
    ),
    "padded channels": (
        lambda: image(
            ("Pad", "h p", "q"),
            ("Conv", "x c", "o"),
            ("Add", "q o", "g"),
            p=i(0, 2, 0, 0, 0, 1, 0, 0),
            c=w(9, 3, 1, 1),
            after=9,
        ),
        [2, 6],
    ),
    "padded channels by attribute": (
        lambda: image(("Pad", "h", "g", {"pads": [0, 1, 0, 0, 0, 1, 0, 0]}), after=8, opset=9),
        [6],
    ),
    "embedding": (
        lambda: build(
            [("Gather", "e x", "h"), ("MatMul", "h b", "y")], ("n", 4), kind=onnx.TensorProto.INT64, e=w(7, 5), b=w(5, 2)
        ),
        [5],
    ),
    # whole dimensions
    "global pool": (
        lambda: build(
            [("Conv", "x a", "h"), ("GlobalAveragePool", "h", "p"), ("Flatten", "p", "g"), ("Gemm", "g b", "y")],
            ("n", 3, 4, 4),
            a=w(5, 3, 1, 1),
            b=w(5, 2),
        ),
        [5],
    ),
    "pool and resize": (
        lambda: image(
            ("MaxPool", "h", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Resize", "p _ s", "g"),
            s=np.float32([1, 1, 2, 2]),
        ),
        [6],
    ),
    "resize to sizes": (lambda: image(("Resize", "h _ _ s", "g"), s=i(2, 6, 8, 8)), [6]),
    "sum over space": (
        lambda: build(
            [("Conv", "x a", "h"), ("ReduceSum", "h d", "g", {"keepdims": 0}), ("Gemm", "g b", "y")],
            ("n", 3, 4, 4),
            d=i(2, 3),
            a=w(5, 3, 1, 1),
            b=w(5, 2),
        ),
        [5],
    ),
    "softmax stays": (lambda: dense(("Softmax", "h", "g")), []),
    "mean stays": (lambda: dense(("ReduceMean", "h one", "m"), ("Mul", "h m", "g"), one=i(1)), []),
    "maximum stays": (lambda: dense(("ReduceMax", "h one", "m"), ("Mul", "h m", "g"), one=i(1)), []),
    "top entries stay": (lambda: dense(("TopK", "h k", "g where"), k=i(2), after=2), []),
    "unknown operator stays": (lambda: image(("LRN", "h", "g", {"size": 3})), []),
    # recurrent
    "lstm": (lambda: recurrent("LSTM", 4), [4]),
    "gru": (lambda: recurrent("GRU", 3, linear_before_reset=1), [4]),
    "rnn": (lambda: recurrent("RNN", 1), [4]),
}


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    made, expected = CASES[name]
    sizes_given = {"n": 2} if name == "resize to sizes" else None
    assert sizes(check(made(), sizes=sizes_given)) == expected


def test_attention_as_one_operator() -> None:
    """Version 23: heads and head widths of one product, the scale of the dense width kept."""
    nodes = [
        ("MatMul", "x q", "a"),
        ("MatMul", "x k", "b"),
        ("MatMul", "x v", "c"),
        ("Attention", "a b c", "g", {"q_num_heads": 4, "kv_num_heads": 2}),
        ("MatMul", "g o", "y"),
    ]
    model = build(nodes, ("n", 5, 3), 23, q=w(3, 12), k=w(3, 6), v=w(3, 4), o=w(8, 2))
    graph = check(model)
    assert sizes(graph) == [2, 2, 2, 3]
    assert {group.kind for group in graph.prunable()} == {"kv-heads", "heads", "head-dims"}


def test_unknown_operator_is_reported() -> None:
    graph = check(CASES["unknown operator stays"][0]())
    assert "no rule for LRN" in {frozen.reason for frozen in graph.frozen}


def test_a_shared_initializer_is_one_member() -> None:
    model = build(
        [("MatMul", "x a", "h"), ("MatMul", "h c", "i"), ("Relu", "i", "j"), ("MatMul", "j c", "k"), ("MatMul", "k b", "y")],
        ("n", 3),
        a=w(3, 5),
        c=w(5, 5),
        b=w(5, 2),
    )
    graph = check(model)
    assert sizes(graph) == [5]
    assert sorted((piece.tensor, piece.dim) for piece in graph.prunable()[0].slices) == [("a", 1), ("b", 0), ("c", 0), ("c", 1)]


def test_equal_numbers_that_nodes_share_are_no_tie() -> None:
    model = build(
        [("MatMul", "x a", "h"), ("Mul", "h one", "i"), ("MatMul", "i c", "j"), ("Mul", "j one", "k"), ("MatMul", "k b", "y")],
        ("n", 3),
        a=w(3, 5),
        c=w(5, 5),
        b=w(5, 2),
        one=np.ones(5, dtype=np.float32),
    )
    assert sizes(check(model)) == [5, 5]
