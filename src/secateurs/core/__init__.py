"""Tensors only: masks, exact selection, structures, criteria, allocation, schedules. Knows no model and no data."""
