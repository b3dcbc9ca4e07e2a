"""The sparse folder, version 1: safetensors and JSON, written whole or not at all, read without executing anything."""

from secateurs.formats.huggingface import is_pretrained
from secateurs.formats.reading import load, read_info, read_tensors
from secateurs.formats.structure import adopt, built_on_meta, named_tensors, note_blocks, note_changes, record_of
from secateurs.formats.writing import save

__all__ = [
    "adopt", "built_on_meta", "is_pretrained", "load", "named_tensors", "note_blocks", "note_changes", "read_info",
    "read_tensors", "record_of", "save",
]  # fmt: skip
