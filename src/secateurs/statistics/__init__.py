"""What calibration measures."""

from secateurs.statistics.gradients import mean_gradients

__all__ = ["mean_gradients"]
