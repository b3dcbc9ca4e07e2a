"""Proof that a plan was carried out."""

from secateurs.apply.verify import Check, Verification, verify

__all__ = ["Check", "Verification", "verify"]
