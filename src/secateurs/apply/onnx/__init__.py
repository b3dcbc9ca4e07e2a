"""Cutting an ONNX model, and proof that it still computes what the masked one does."""

from __future__ import annotations

from secateurs.apply.onnx.cutting import cut
from secateurs.apply.onnx.proof import verify_cut

__all__ = ["cut", "verify_cut"]
