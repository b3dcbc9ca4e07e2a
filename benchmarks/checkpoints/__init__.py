"""Trained dense models that a comparison begins with, each beside the row of the run that made it."""
