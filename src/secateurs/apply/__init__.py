"""Proof that a plan was carried out."""

from secateurs.apply.verify import Check, Verification, planned_counts, planned_zeros, same_tensors, verify

__all__ = ["Check", "Verification", "planned_counts", "planned_zeros", "same_tensors", "verify"]
