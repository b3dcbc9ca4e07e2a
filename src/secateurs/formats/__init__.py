"""The sparse folder, version 1: safetensors and JSON, written whole or not at all, read without executing anything."""

from secateurs.formats.reading import load, read_info, read_tensors
from secateurs.formats.writing import save

__all__ = ["load", "read_info", "read_tensors", "save"]
