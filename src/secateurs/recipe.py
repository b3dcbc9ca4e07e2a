"""A recipe: every choice of a pruning run as plain data. The Python call, the command's flags and a YAML file all make one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from secateurs.core.count import check_sparsity
from secateurs.errors import BadInput, near
from secateurs.extras import require

__all__ = ["Recipe", "check_types", "read_mapping"]

Kind = TypeVar("Kind")

ENFORCEMENTS = ("keep", "overwrite", "straight-through")
LISTS = ("structures", "include", "exclude", "types", "exempt")
TABLES = ("allocation_options", "overrides", "options")
AMOUNTS = ("sparsity", "keep", "total_sparsity", "ratio", "flops", "params", "bytes", "latency")
STRUCTURES = ("channels", "heads", "kv-heads", "head-dims", "neurons", "hidden", "width", "experts", "groups", "layers",
              "blocks")  # fmt: skip
#: Of these, what removes whole repeated blocks; both words say the same.
LAYERS = ("layers", "blocks")
#: Fields that mean something only where whole structures are removed.
FOR_STRUCTURES = ("ratio", "flops", "params", "bytes", "latency", "structures", "scope", "round_to", "least", "steps",
                  "aggregate", "normalize", "power", "recovery")  # fmt: skip
#: What is done for the quality of what is left, straight after a cut.
RECOVERIES = ("none", "norms", "reconstruct")


@dataclass(frozen=True)
class Recipe:
    """All settings of a pruning run; what is None is left to the method's defaults.

    Amount, one of: ``sparsity``, the share of the selected weights removed; ``keep``, the share (float) or number (int)
    kept; ``total_sparsity``, the share of *all* parameters that are zero in the end. N:M structures fix it themselves.

    With ``structures`` (:data:`STRUCTURES`), which make tensors smaller, the amount is one of: ``ratio``, the share of
    channels, heads, ... removed; or what is left of ``flops`` (multiply-adds on the example), ``params``, ``bytes`` or
    ``latency``: a float is a share of the dense model, an integer a count, text has a unit (``"10MB"``, ``"3ms"``).
    ``layers`` with ``include`` and no amount are the blocks that it names.
    ``criterion`` scores weights; ``aggregate``, ``normalize`` and ``power`` make them scores of groups
    (:class:`secateurs.planning.Scoring`); ``scope`` says what is ranked together, ``round_to`` to which multiple kept counts
    are rounded down, ``least`` how many (int) or which share (float) of every group stays; ``steps`` repeats scoring and
    cutting. ``recovery`` works on what stays, with the calibration data: ``"norms"`` takes batch norms' statistics anew,
    ``"reconstruct"`` fits every layer that lost columns to the dense layer's outputs, and takes them anew on the way.
    """

    method: str = "gmp"
    sparsity: float | None = None
    keep: float | int | None = None
    total_sparsity: float | None = None
    structure: str | None = None
    criterion: str | None = None
    allocation: str | None = None
    allocation_options: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    begin: int | float | str | None = None
    end: int | float | str | None = None
    every: int | None = None
    total_steps: int | None = None
    initial_sparsity: float = 0.0
    enforcement: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    overrides: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    structures: tuple[str, ...] = ()
    ratio: float | None = None
    flops: float | int | None = None
    params: float | int | None = None
    bytes: float | int | str | None = None
    latency: float | str | None = None
    scope: str | None = None
    round_to: int | None = None
    least: float | int | None = None
    steps: int | None = None
    aggregate: str | None = None
    normalize: str | None = None
    power: float | None = None
    recovery: str | None = None

    def __post_init__(self) -> None:
        for name in LISTS:
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        for name in TABLES:
            if not isinstance(getattr(self, name), Mapping):
                raise BadInput(f"{name}={getattr(self, name)!r}: give a table of names and values")
        _take_structure(self)
        amounts = [n for n in AMOUNTS if getattr(self, n) is not None]
        if len(amounts) > 1:
            raise BadInput(f"{' and '.join(amounts)} say the same thing twice; give one of them")
        for name in ("sparsity", "total_sparsity"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_sparsity(getattr(self, name), name))
        if self.keep is not None and (isinstance(self.keep, bool) or not isinstance(self.keep, (int, float))):
            raise BadInput(f"keep={self.keep!r}: give the share kept (a float) or the number of weights kept (an integer)")
        for pattern, share in self.overrides.items():
            check_sparsity(share, f"overrides[{pattern!r}]")
        check_sparsity(self.initial_sparsity, "initial_sparsity")
        if self.enforcement is not None and self.enforcement not in ENFORCEMENTS:
            raise BadInput(f"enforcement={self.enforcement!r} is unknown; use one of {', '.join(ENFORCEMENTS)}"
                           + near(self.enforcement, ENFORCEMENTS))  # fmt: skip
        if self.recovery is not None and self.recovery not in RECOVERIES:
            raise BadInput(f"recovery={self.recovery!r} is unknown; use one of {', '.join(RECOVERIES)}"
                           + near(self.recovery, RECOVERIES))  # fmt: skip
        for name in ("every", "total_steps", "round_to", "steps"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise BadInput(f"{name}={value!r}: give a whole number{'' if name == 'round_to' else ' of steps'}, at least 1")

    @property
    def removes_layers(self) -> bool:
        """Whether whole repeated blocks go."""
        return any(word in LAYERS for word in self.structures)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Recipe:
        """The same recipe with ``defaults`` where it says nothing (a field that is None)."""
        missing = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        return dataclasses.replace(self, **missing)

    def to_dict(self) -> dict[str, Any]:
        """What was said, as JSON-able data: fields left at their default are left out."""
        said = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            if f.name == "method" or value != default:
                said[f.name] = list(value) if isinstance(value, tuple) else value
        return said

    @classmethod
    def of(cls, method: str | Recipe, settings: Mapping[str, Any]) -> Recipe:
        """The recipe of a call: a method's name, or a whole recipe, and the fields said beside it.

        ``allocation`` may be a mapping of patterns and shares, which stands for ``"explicit"`` and these ``overrides``.
        """
        said = method.to_dict() if isinstance(method, Recipe) else {"method": method}
        if isinstance(settings.get("structure"), (list, tuple)):
            settings = {**settings, "structures": settings["structure"], "structure": None}
        shares = settings.get("allocation")
        if isinstance(shares, Mapping):
            settings = {**settings, "allocation": "explicit", "overrides": {**shares, **settings.get("overrides", {})}}
        return cls.from_dict({**said, **settings})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data; :class:`BadInput` quotes an unknown key."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in data:
            if key not in known:
                hint = near(str(key), known) or f"; the keys are {', '.join(known)}"
                raise BadInput(f"recipe key {key!r} is unknown{hint}")
        return cls(**data)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read and validate a YAML file; an error quotes the file and the key.

        Raises:
            BadInput: not readable, not YAML, an unknown key or a value of the wrong type.
        """
        data = read_mapping(path, "recipe")
        try:
            return cls.typed(data)
        except BadInput as error:
            raise BadInput(f"recipe {str(path)!r}: {error}") from error

    @classmethod
    def typed(cls, data: Mapping[str, Any]) -> Recipe:
        """:meth:`from_dict` that checks the type of every value too (with pydantic); a single name may stand for a list.

        Raises:
            BadInput: an unknown key or a value of the wrong type.
        """
        cls.from_dict({key: None for key in data if key not in {f.name for f in dataclasses.fields(cls)}})
        for key, value in data.items():
            if isinstance(value, bool):
                raise BadInput(f"{key}: no key takes yes or no, true or false, on or off (found {value})")
        single = {key: [data[key]] for key in LISTS if isinstance(data.get(key), str)}
        return check_types(cls, {**data, **single})

    def to_yaml(self) -> str:
        """The text that :meth:`from_yaml` reads back to an equal recipe."""
        yaml = require("yaml", "cli")
        return yaml.dump(self.to_dict(), Dumper=_plain_numbers(yaml, yaml.SafeDumper), sort_keys=False)


def read_mapping(path: str | Path, what: str) -> dict[Any, Any]:
    """The mapping of a YAML file; ``what`` it is (``"recipe"``) is said in errors.

    Raises:
        BadInput: not readable, not YAML, or not a mapping.
    """
    yaml = require("yaml", "cli")
    loader = _no_doubles(yaml, _plain_numbers(yaml, yaml.SafeLoader))
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{what} {str(path)!r} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{what} {str(path)!r} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{what} {str(path)!r} must be a mapping of keys to values, found {type(data).__name__}")
    return data


def check_types(kind: type[Kind], data: Mapping[str, Any]) -> Kind:
    """A dataclass from plain data, with its types checked; :class:`BadInput` names every key that does not fit."""
    pydantic = require("pydantic", "cli")
    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        raise BadInput("; ".join(map(_row, error.errors()))) from error


def _take_structure(recipe: Recipe) -> None:
    """``structure="channels"`` and ``method="channels"`` are ``structures=("channels",)``; what is for them needs some."""
    if recipe.method in STRUCTURES and recipe.structure is None:  # only structures are named
        object.__setattr__(recipe, "structures", tuple(dict.fromkeys((recipe.method, *recipe.structures))))
        object.__setattr__(recipe, "method", "magnitude")
    if recipe.structure in STRUCTURES:
        if recipe.structures and recipe.structures != (recipe.structure,):
            raise BadInput(f"structure={recipe.structure!r} and structures={list(recipe.structures)} differ; give one of them")
        object.__setattr__(recipe, "structures", (recipe.structure,))
        object.__setattr__(recipe, "structure", None)
    own = _structures_of(recipe.method)
    if own and recipe.structure is not None:
        raise BadInput(f"method {recipe.method!r} removes whole structures ({', '.join(own)}), and structure="
                       f"{recipe.structure!r} makes zeros")  # fmt: skip
    if own and not recipe.structures:
        object.__setattr__(recipe, "structures", own)
    for word in recipe.structures:
        if word not in STRUCTURES:
            raise BadInput(f"structure {word!r} is unknown; whole structures are {', '.join(STRUCTURES)}"
                           + near(word, STRUCTURES))  # fmt: skip
    if recipe.removes_layers and not set(recipe.structures) <= set(LAYERS):
        raise BadInput(f"structures={list(recipe.structures)}: whole layers go in a run of their own, before others")
    if recipe.structures and recipe.structure is not None:
        raise BadInput(f"structure={recipe.structure!r} makes zeros, structures={list(recipe.structures)} makes tensors "
                       "smaller; give one of them")  # fmt: skip
    alone = [name for name in FOR_STRUCTURES if getattr(recipe, name) not in (None, ())] if not recipe.structures else []
    if alone:
        said = recipe.structure or recipe.method
        raise BadInput(f"{alone[0]}={getattr(recipe, alone[0])!r} is for whole structures: name them, as in sc.prune(model, "
                       f"'channels', ...) or structures=['heads', 'neurons']{near(said, STRUCTURES)}")  # fmt: skip


def _structures_of(method: str) -> tuple[str, ...]:
    """What a method removes where only the method is named; nothing for a method of single weights, or an unknown one."""
    from secateurs.registry import METHODS, find_method  # here: its files are read when a method is asked for

    return find_method(method).structures if method in METHODS else ()


def _words(name: str, value: Any) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (tuple, list)) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise BadInput(f"{name}={value!r}: give a name, or a list of names")
    return words


def _row(error: Mapping[str, Any]) -> str:
    """One of pydantic's findings; those of our own checks quote key and value themselves."""
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']} (found {error['input']!r})" if place else error["msg"].removeprefix("Value error, ")


def _no_doubles(yaml: ModuleType, base: Any) -> type:
    """``base`` that refuses a key given twice, of which YAML's own reader keeps the last without a word."""

    class Loader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _plain_numbers(yaml: ModuleType, base: type) -> type:
    """``base`` without YAML 1.1's surprises: ``2:4`` is text (not 124, base sixty), ``1e-3`` a number, ``0o17`` text."""
    integer, real = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
    dialect: Any = type(base.__name__, (base,), {})
    known = dialect.yaml_implicit_resolvers.items()
    dialect.yaml_implicit_resolvers = {first: [r for r in rules if r[0] not in (integer, real)] for first, rules in known}
    dialect.add_implicit_resolver(integer, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
    decimal = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$")
    dialect.add_implicit_resolver(real, decimal, list("-+.0123456789"))
    return dialect
