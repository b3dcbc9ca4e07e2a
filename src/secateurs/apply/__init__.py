"""Carrying a plan out on structure, and proof that it was carried out."""

from secateurs.apply.depth import shorten, verify_shortened
from secateurs.apply.planned import planned_parameters
from secateurs.apply.proof import kept_parameters, verify_shrunk
from secateurs.apply.shrink import Shrunk, shrink
from secateurs.apply.slicing import slice_optimizer, slice_tensors
from secateurs.apply.verify import Check, Verification, planned_counts, planned_zeros, same_tensors, verify

__all__ = [
    "Check", "Shrunk", "Verification", "kept_parameters", "planned_counts", "planned_parameters", "planned_zeros",
    "same_tensors", "shorten", "shrink", "slice_optimizer", "slice_tensors", "verify", "verify_shortened", "verify_shrunk",
]  # fmt: skip
