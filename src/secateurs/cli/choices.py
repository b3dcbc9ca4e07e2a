"""From flags and a recipe file to one recipe: the same fields as in the Python call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.errors import BadInput
from secateurs.recipe import AMOUNTS, Recipe

__all__ = ["amount", "budget", "check_one_shot", "one_of", "pairs", "said", "words"]

LOOP = """  pruner = secateurs.Pruner(model, {name!r}, sparsity=0.9, begin=0.1, end=0.75, every=100, total_steps=n)
  pruner.attach(optimizer)     # before training: acts after each optimizer.step()
  model = pruner.finish()      # after it
  secateurs.save(model, "pruned")"""

CALL = """  result = secateurs.prune(model, {name!r}, sparsity=0.8, calibration=batches, loss=loss)
  secateurs.save(result.model, "pruned", recipe=result.recipe, plan=result.plan, report=result.report)"""


def said(file: Path | None, flags: dict[str, Any]) -> Recipe:
    """The recipe of ``file``, if any, overridden by ``flags``; a flag that is None or empty says nothing.

    Raises:
        BadInput: the file or a value is wrong.
    """
    given = {key: value for key, value in flags.items() if value is not None and value != () and value != [] and value != {}}
    if str(given.get("allocation", "")).endswith(".json"):
        given["overrides"] = {**_shares(Path(given["allocation"])), **given.get("overrides", {})}
        given["allocation"] = "explicit"
    base: dict[str, Any] = {"method": "magnitude"} if file is None else Recipe.from_yaml(file).to_dict()
    if any(name in given for name in AMOUNTS):
        base = {key: value for key, value in base.items() if key not in AMOUNTS}
    return Recipe.from_dict({**base, **given})


def _shares(path: Path) -> dict[str, Any]:
    """Patterns of names and the share of each, from a JSON file."""
    try:
        shares = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"--allocation {str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(shares, dict):
        raise BadInput(f"--allocation {str(path)!r} must hold an object, name or pattern to share: found "
                       f"{type(shares).__name__}")  # fmt: skip
    return shares


def check_one_shot(recipe: Recipe, text: bool) -> bool:
    """Refuse what a command cannot do, with the lines of Python that can; whether the method goes block by block.

    Raises:
        BadInput: an unknown name, a method that needs training, or one that needs data where there is no ``text``.
    """
    from secateurs.planning import Choices
    from secateurs.registry import find_method
    from secateurs.train import goes_by_blocks

    method = find_method(recipe.method)(recipe.options)
    if "training" in method.needs:
        raise _in_python(recipe.method, "while the model trains", LOOP)
    choices = Choices.of(recipe.with_defaults(method.defaults), method)
    walks = goes_by_blocks(choices)
    if walks and not text:
        raise BadInput(f"{recipe.method!r} prunes by what calibration data shows: add --calibration FILE (text: .txt, .jsonl, "
                       ".parquet; a folder of images or recordings; ready inputs: .safetensors)")  # fmt: skip
    if "gradient" in choices.criterion.needs and not text:
        raise _in_python(recipe.method, "by gradients, which need data (of a language model: --calibration FILE)", CALL)
    return walks


def _in_python(name: str, how: str, lines: str) -> BadInput:
    """The error, with the lines of Python as its note."""
    error = BadInput(f"{name!r} prunes {how}: there is no command for that, in Python it is")
    error.add_note(lines.format(name=name))
    return error


def one_of(**flags: str | None) -> str:
    """The name of the one flag that was given.

    Raises:
        BadInput: none was, or several.
    """
    given = [name for name, value in flags.items() if value is not None]
    if len(given) != 1:
        said = " and ".join(f"--{name}" for name in given) or "neither"
        raise BadInput(f"give one of {' or '.join(f'--{name}' for name in flags)} (found {said})")
    return given[0]


def amount(text: str | None) -> float | int | None:
    """``--keep``: ``"0.2"`` is a share, ``"2000"`` a number of weights.

    Raises:
        BadInput: neither.
    """
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise BadInput(f"--keep {text!r}: give a share (0.2) or a number of weights (2000)") from None


def budget(text: str | None) -> float | int | str | None:
    """``--flops``, ``--bytes`` and the like: ``"0.5"`` is a share, ``"2000"`` a count, all else (``"10MB"``) has a unit."""
    try:
        return None if text is None else int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def words(structure: str | None) -> dict[str, Any]:
    """``--structure`` as recipe fields: words with commas between are several."""
    several = [] if structure is None else [word.strip() for word in structure.split(",")]
    return {"structures": several} if len(several) > 1 else {"structure": structure}


def pairs(flag: str, given: Sequence[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` flags as a mapping; a value that reads as JSON (a number, true) is that, any other is text.

    Raises:
        BadInput: no ``=``.
    """
    found = {}
    for text in given or ():
        key, equals, value = text.rpartition("=")
        if not equals or not key:
            raise BadInput(f"{flag} {text!r}: write KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
