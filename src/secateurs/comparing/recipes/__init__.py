"""From a recipe to the grid of its runs."""
