"""A smaller ONNX model: its initializers cut, its literals rewritten, its shapes inferred anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from secateurs.apply.masking import masked_tensors
from secateurs.apply.onnx.editing import Editor, Kept, to_array
from secateurs.apply.onnx.literals import rewrite
from secateurs.apply.onnx.statistics import keep_statistics
from secateurs.apply.slicing import slice_tensors
from secateurs.errors import BadInput
from secateurs.graph.groups import Graph, Keeps
from secateurs.graph.onnx.reading import tidy
from secateurs.graph.onnx.walk import file_of, weights

__all__ = ["cut", "masked"]


def cut(graph: Graph, keeps: Keeps) -> Any:
    """The ``ModelProto`` in which only ``keeps`` is left (:func:`~secateurs.graph.onnx.trace_onnx`).

    Raises:
        BadInput: the keeps are none of the graph's, a literal cannot express what remains, or the result is not a valid model.
    """
    edit, kept = Editor(file_of(graph)), Kept(graph, keeps)
    _replace(edit, graph, slice_tensors(graph, keeps, weights(graph)))
    for proto, node in zip(edit.each(), file_of(graph).nodes, strict=True):
        rewrite(edit, proto, node, kept)
    return checked(edit)


def masked(graph: Graph, keeps: Keeps) -> Any:
    """The model of the dense shapes with every entry that leaves at zero; norms take their statistics from what stays."""
    edit, kept = Editor(file_of(graph)), Kept(graph, keeps)
    _replace(edit, graph, masked_tensors(graph, keeps, weights(graph)))
    for proto, node in zip(edit.each(), file_of(graph).nodes, strict=True):
        keep_statistics(edit, proto, node, kept)
    return checked(edit)


def _replace(edit: Editor, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value is not file_of(graph).state_dict[name]:
            edit.replace(name, to_array(value, file_of(graph).initial[name]))


def checked(edit: Editor) -> Any:
    """The edited model, whose shapes were inferred anew; they are not written down, for whoever runs it infers them too.

    Raises:
        BadInput: the checker or the inference objects.
    """
    model = tidy(edit.model)
    try:
        edit.onnx.checker.check_model(model)
        edit.onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # the checker and the inference have a class each
        raise BadInput(f"the smaller model does not fit together: {' '.join(str(error).split())[:300]}") from error
    return model
