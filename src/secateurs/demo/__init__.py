"""The demonstration: a pruned network against small dense ones of the same bytes, on handwritten digits."""

from secateurs.demo.experiment import run
from secateurs.demo.settings import Settings

__all__ = ["Settings", "run"]
