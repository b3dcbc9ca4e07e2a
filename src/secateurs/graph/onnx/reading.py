"""Reading an ONNX file: checked, its functions inlined, its constants in one place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from secateurs.errors import BadInput, CorruptFile
from secateurs.extras import require
from secateurs.graph.onnx.file import Node, OnnxFile, as_array

__all__ = ["OPSETS", "read_model", "tidy"]

OPSETS = range(9, 24)
"""Versions of the standard operators whose differences the rules know."""
LARGEST = 2**31 - 2**20
"""A protobuf message is smaller than 2 GiB."""


def read_model(source: Any) -> Any:
    """The ``ModelProto`` in a file (weights beside it too) or given, checked and in the form the rules expect.

    Raises:
        BadInput: no such file, too large, or of an operator version the rules do not know.
        CorruptFile: it is no ONNX model, or its shapes do not fit one another.
    """
    onnx = require("onnx", "onnx")
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        model = _load(onnx, Path(source).expanduser())
    _check_size(model, source)
    _check_opset(model)
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        model = require("onnx.inliner", "onnx").inline_local_functions(model)
    except Exception as error:  # the checker, the inference and the inliner have a class each
        raise CorruptFile(f"{_called(source)} is not a valid ONNX model: {' '.join(str(error).split())[:300]}") from error
    _move_constants(onnx, model)
    _drop_defaults(model)
    _part_uniform(model)
    return tidy(model)


def _called(source: Any) -> str:
    return repr(str(source)) if isinstance(source, (str, Path)) else "this"


def _load(onnx: Any, path: Path) -> Any:
    if not path.is_file():
        raise BadInput(f"{str(path)!r} does not exist" if not path.exists() else f"{str(path)!r} is no file")
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's, or the one about weights that should lie beside
        raise CorruptFile(f"{str(path)!r} cannot be read as ONNX: {' '.join(str(error).split())[:300]}") from error


def _check_size(model: Any, source: Any) -> None:
    stored = sum(len(proto.raw_data) for proto in model.graph.initializer)
    if stored > LARGEST or model.ByteSize() > LARGEST:
        raise BadInput(f"{_called(source)} holds {stored / 2**30:.1f} GiB of weights: 2 GiB and more, which no single file can "
                       "hold, are not supported; prune the model before it is exported")  # fmt: skip


def _check_opset(model: Any) -> None:
    version = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if version not in OPSETS:
        raise BadInput(f"the model has version {version} of the ONNX operators; {OPSETS[0]} to {OPSETS[-1]} are known: convert "
                       "it with onnx.version_converter.convert_version")  # fmt: skip


def _move_constants(onnx: Any, model: Any) -> None:
    """``Constant`` nodes become initializers; those of strings and sparse tensors stay."""
    for proto in [node for node in model.graph.node if node.op_type == "Constant"]:
        value = _constant(onnx, proto)
        if value is not None:
            value.name = proto.output[0]
            model.graph.initializer.append(value)
            model.graph.node.remove(proto)


def _constant(onnx: Any, proto: Any) -> Any:
    attribute = proto.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return value
    kind = {"value_int": "INT64", "value_ints": "INT64", "value_float": "FLOAT", "value_floats": "FLOAT"}.get(attribute.name)
    if kind is None:
        return None
    several = isinstance(value, (list, tuple)) or attribute.name.endswith("s")
    values = list(value) if several else [value]
    return onnx.helper.make_tensor("", getattr(onnx.TensorProto, kind), [len(values)] if several else [], values)


def _drop_defaults(model: Any) -> None:
    """Old models list their weights as inputs that a caller may replace; here they are weights."""
    weights = {proto.name for proto in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)


def _part_uniform(model: Any) -> None:
    """A list of equal numbers that exporters share between nodes (ones, zeros) is no tie: each node gets its own."""
    nodes = [node for node in model.graph.node if not Node(node, OnnxFile(None, {}, {})).has_graphs]
    readers = Counter(name for node in nodes for name in node.input)
    for proto in list(model.graph.initializer):
        if readers[proto.name] > 1 and _uniform(proto):
            places = [(node, i) for node in nodes for i, name in enumerate(node.input) if name == proto.name]
            for k, (node, i) in enumerate(places[1:], start=1):
                own = model.graph.initializer.add()
                own.CopyFrom(proto)
                own.name = node.input[i] = f"{proto.name}.{k}"


def _uniform(proto: Any) -> bool:
    if not proto.dims or max(proto.dims) < 2:
        return False
    value = as_array(proto)
    return value.dtype.kind == "f" and bool((value == value.flat[0]).all())


def tidy(model: Any) -> Any:
    """``model`` without the nodes and initializers nothing reads, and without recorded shapes."""
    file = OnnxFile(model, {}, {})
    read = {value.name for value in model.graph.output}
    for proto in reversed(list(model.graph.node)):
        node = Node(proto, file)
        if read.intersection(node.outputs):
            read |= {*node.inputs, *node.captured}
        else:
            model.graph.node.remove(proto)
    for proto in [each for each in model.graph.initializer if each.name not in read]:
        model.graph.initializer.remove(proto)
    del model.graph.value_info[:]
    return model
