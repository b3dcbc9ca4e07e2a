"""The same groups of an ONNX file: its operators' meanings are those of the rules for PyTorch, and nothing of their source.

A file is read (:mod:`~secateurs.graph.onnx.reading`), run once or twice to see the size of every value
(:mod:`~secateurs.graph.onnx.probing`), and typed (:mod:`~secateurs.graph.onnx.walk`).
"""

from __future__ import annotations

from secateurs.graph.onnx.file import OnnxFile
from secateurs.graph.onnx.walk import file_of, trace_onnx, weights

__all__ = ["OnnxFile", "file_of", "trace_onnx", "weights"]
