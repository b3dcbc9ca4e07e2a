"""Reading, probing and refusing ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from secateurs.errors import BadInput, CorruptFile
from secateurs.graph.onnx import file_of, probing, trace_onnx
from secateurs.graph.onnx.running import run
from tests.graph.onnx.building import build, i, onnx, sizes, w

MLP = [("MatMul", "x a", "h"), ("Relu", "h", "r"), ("MatMul", "r b", "y")]


def mlp(opset: int = 18, **more: object) -> object:
    return build(MLP, ("n", 3), opset, a=w(3, 5), b=w(5, 2), **more)


def test_shape_arithmetic_is_evaluated() -> None:
    """What does not depend on the batch becomes a number; what does stays computed."""
    nodes = [
        ("MatMul", "x a", "h"),
        ("Shape", "h", "s"),
        ("Gather", "s one", "c"),
        ("Gather", "s zero", "n"),
        ("Div", "c two", "half"),
        ("Concat", "n two half", "to", {"axis": 0}),
        ("Reshape", "h to", "t"),
        ("ReduceSum", "t two1", "g", {"keepdims": 0}),
        ("MatMul", "g b", "y"),
    ]
    model = build(nodes, ("n", 3), one=i(1), zero=i(0), two=i(2), two1=i(1), a=w(3, 6), b=w(3, 2))
    graph = trace_onnx(model)
    file = file_of(graph)
    assert file.initial["half"].tolist() == [3]
    assert file.moving["to"].tolist() == [True, False, False] and file.computed["to"].tolist() == [2, 2, 3]
    assert "Div" not in [node.operator for node in file.nodes]
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    assert np.array_equal(run(model, {"x": x})["y"], run(file.model, {"x": x})["y"])
    assert sizes(graph) == [2, 3]


def test_sizes_the_model_does_not_take_are_fixed() -> None:
    """The input says n, but a matrix has five columns: the size is written down, since no other one was seen to run."""
    nodes = [("MatMul", "t x", "h"), ("MatMul", "h a", "i"), ("Relu", "i", "j"), ("MatMul", "j b", "y")]
    model = build(nodes, ("b", "n", 3), t=w(6, 5), a=w(3, 4), b=w(4, 2))
    with pytest.raises(BadInput, match=r"onnxruntime cannot run.*sizes="):
        trace_onnx(model)
    file = file_of(trace_onnx(model, sizes={"n": 5}))
    dims = file.model.graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "b" and dims[1].dim_value == 5
    assert file.others["x"].shape == (3, 5, 3)


def test_inputs_are_checked() -> None:
    with pytest.raises(BadInput, match="the model has no 'z'; it has x"):
        trace_onnx(mlp(), inputs={"z": w(2, 3)})
    with pytest.raises(BadInput, match="'x' is 2x4; the model takes nx3"):
        trace_onnx(mlp(), inputs={"x": (2, 4)})
    with pytest.raises(BadInput, match="the model has no 'm'; it has n"):
        trace_onnx(mlp(), sizes={"m": 4})
    assert file_of(trace_onnx(mlp(), inputs={"x": (4, 3)})).feeds["x"].shape == (4, 3)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, 23])
def test_versions(opset: int) -> None:
    assert sizes(trace_onnx(mlp(opset))) == [5]


def test_refused() -> None:
    old = mlp()
    old.opset_import[0].version = 8  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="version 8 of the ONNX operators; 9 to 23 are known"):
        trace_onnx(old)
    wrong = build(MLP, ("n", 3), a=w(3, 5), b=w(4, 2))
    with pytest.raises(CorruptFile, match="not a valid ONNX model"):
        trace_onnx(wrong)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        trace_onnx(tmp_path / "no.onnx")
    (tmp_path / "odd.onnx").write_bytes(b"\x08no model at all")
    with pytest.raises(CorruptFile, match=r"odd\.onnx"):
        trace_onnx(tmp_path / "odd.onnx")
    onnx.save(mlp(), tmp_path / "mlp.onnx")
    assert sizes(trace_onnx(tmp_path / "mlp.onnx")) == [5]


def test_weights_beside_the_file(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "mlp.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").is_file()
    assert sizes(trace_onnx(tmp_path / "mlp.onnx")) == [5]


def test_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateurs.graph.onnx.reading.LARGEST", 40)
    with pytest.raises(BadInput, match="2 GiB and more"):
        trace_onnx(mlp())


def test_weights_listed_as_inputs_and_constants_as_nodes() -> None:
    model = mlp()
    h = onnx.helper
    model.graph.input.append(h.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [3, 5]))  # type: ignore[attr-defined]
    b = next(each for each in model.graph.initializer if each.name == "b")  # type: ignore[attr-defined]
    model.graph.node.insert(0, h.make_node("Constant", [], ["b"], value=b))  # type: ignore[attr-defined]
    model.graph.initializer.remove(b)  # type: ignore[attr-defined]
    graph = trace_onnx(model)
    assert sizes(graph) == [5] and file_of(graph).inputs == ["x"]


def test_branches_freeze_what_they_read() -> None:
    h = onnx.helper
    y = h.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    branches = [h.make_graph([h.make_node(op, ["h"], ["z"])], op, [], [y]) for op in ("Relu", "Neg")]
    nodes = [
        ("MatMul", "x a", "h"),
        ("If", "c", "r", {"then_branch": branches[0], "else_branch": branches[1]}),
        ("MatMul", "r b", "y"),
    ]
    graph = trace_onnx(build(nodes, ("n", 3), c=np.array(True), a=w(3, 5), b=w(5, 2)))
    assert not graph.prunable() and "a graph of its own" in {frozen.reason for frozen in graph.frozen}


def test_outputs_that_change_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a kernel that reads memory nobody wrote."""
    count = iter(range(9))

    def restless(model: object, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        drift = next(count)
        return {name: value + drift for name, value in run(model, feeds).items()}

    monkeypatch.setattr(probing, "run", restless)
    with pytest.raises(BadInput, match="does not give the same outputs twice"):
        trace_onnx(mlp())


def test_half_precision_and_bfloat16() -> None:
    model = mlp()
    for proto in model.graph.initializer:  # type: ignore[attr-defined]
        value = onnx.numpy_helper.to_array(proto).astype(np.float16)
        proto.CopyFrom(onnx.numpy_helper.from_array(value, proto.name))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x16"], to=10))  # type: ignore[attr-defined]
    model.graph.node[1].input[0] = "x16"  # type: ignore[attr-defined]
    model.graph.node[-1].output[0] = "y16"  # type: ignore[attr-defined]
    model.graph.node.append(onnx.helper.make_node("Cast", ["y16"], ["y"], to=1))  # type: ignore[attr-defined]
    assert sizes(trace_onnx(model)) == [5]
