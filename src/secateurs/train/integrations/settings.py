"""What a callback is told, before there is a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateurs.recipe import Recipe
from secateurs.registry import find_method

__all__ = ["to_recipe"]


def to_recipe(method: str | Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a callback's arguments, with the names checked that need no model.

    Raises:
        BadInput: a setting, the method or one of its options is unknown.
    """
    recipe = Recipe.of(method, settings)
    find_method(recipe.method)(recipe.options)
    return recipe
