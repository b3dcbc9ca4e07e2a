"""Retraining a pruned model by a small part of its parameters (Zimmer et al. 2023, "PERP"), or block by block."""

from secateurs.train.retraining.adapters import ADAPTERS
from secateurs.train.retraining.blocks import BlockRetraining, Retrains
from secateurs.train.retraining.placing import How, check_how
from secateurs.train.retraining.session import Retraining
from secateurs.train.retraining.subsets import PARTS

__all__ = ["ADAPTERS", "PARTS", "BlockRetraining", "How", "Retraining", "Retrains", "check_how"]
