"""What calibration measures."""

from secateurs.statistics.accumulators import ACCUMULATORS, Accumulator, Gram, Moments, Norms, find_accumulator
from secateurs.statistics.balance import per_class
from secateurs.statistics.gradients import hessian_gradients, mean_gradients
from secateurs.statistics.magnitudes import GradientSums, check_reached, gradient_sums, single_samples

__all__ = [
    "ACCUMULATORS", "Accumulator", "GradientSums", "Gram", "Moments", "Norms",
    "check_reached", "find_accumulator", "gradient_sums", "hessian_gradients",
    "mean_gradients", "per_class", "single_samples",
]  # fmt: skip
