"""Narrowing a survey: by name, by kind, by named exemption. What is not chosen is left alone with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from secateurs.errors import BadInput, near
from secateurs.models.kinds import CONVOLUTIONS, KINDS, roles
from secateurs.models.tree import Left, Survey, Weight

__all__ = ["EXEMPTIONS", "matching", "select"]


def select(
    survey: Survey,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    types: Sequence[str] = (),
    exempt: Sequence[str] = (),
) -> Survey:
    """The part of ``survey`` that is to be pruned.

    Args:
        survey: what :func:`secateurs.models.survey` found.
        include: names or globs (``*``, ``?``, ``[...]``; case matters, ``*`` crosses dots) of parameters or of the modules that
            hold them; a tied parameter goes by each of its names. Empty means everything.
        exclude: the same, taken away again.
        types: kinds to keep, of :data:`secateurs.models.KINDS`. Empty means all.
        exempt: named rules of :data:`EXEMPTIONS`, read on the whole model: what they name stays dense.

    Raises:
        BadInput: a name that matches nothing (with near matches) or, under ``include``, only what cannot be pruned (with the
            reason); an unknown kind or rule; nothing is left to prune.
    """
    included = _named(survey, _patterns(include), "include") if include else dict.fromkeys(survey.names, "")
    excluded = _named(survey, _patterns(exclude), "exclude")
    spared = _exempted(survey, _known(exempt, EXEMPTIONS, "exempt"))
    kinds = _known(types, KINDS, "types")

    def reason(weight: Weight) -> str:
        if weight.name not in included:
            return f"not named by include={list(_patterns(include))}"
        if kinds and weight.kind not in kinds:
            return f"its kind {weight.kind!r} is not among types={kinds}"
        return excluded.get(weight.name) or spared.get(weight.name, "")

    reasons = {weight.name: reason(weight) for weight in survey.weights}
    chosen = tuple(weight for weight in survey.weights if not reasons[weight.name])
    dropped = tuple(Left(w.name, w.shape, w.size, reasons[w.name]) for w in survey.weights if reasons[w.name])
    result = Survey(chosen, survey.left + dropped, survey.order)
    if not chosen:
        raise BadInput(_nothing(result))
    return result


def matching(survey: Survey, pattern: str, what: str = "pattern") -> tuple[Weight, ...]:
    """The prunable weights that ``pattern`` names (see :func:`select` for what it may be).

    Raises:
        BadInput: none; the message has the reason where it names what is left alone, and near matches otherwise.
    """
    found = tuple(weight for weight in survey.weights if _fits(pattern, _handles(weight)))
    if found:
        return found
    left = [item for item in survey.left if _fits(pattern, _left_handles(item))]
    if left:
        listed = "; ".join(f"{item.name!r}: {item.reason}" for item in left[:3])
        more = f" (and {len(left) - 3} more)" if len(left) > 3 else ""
        raise BadInput(f"{what}={pattern!r} names only what is left alone: {listed}{more}")
    raise BadInput(f"{what}={pattern!r} matches no parameter and no module{_hint(survey, pattern)}")


def _first_conv(survey: Survey) -> set[str]:
    return {weight.name for weight in [w for w in survey.weights if w.kind in CONVOLUTIONS][:1]}


def _depthwise(survey: Survey) -> set[str]:
    return {weight.name for weight in survey.weights if weight.kind == "depthwise-conv"}


def _embedding(survey: Survey) -> set[str]:
    return {weight.name for weight in survey.weights if weight.kind == "embedding"}


def _last_linear(survey: Survey) -> set[str]:
    """The linear layer that stands last; where it is tied to an embedding, that shared weight."""
    place = {name: i for i, name in enumerate(survey.order)}
    found = [
        (place[site.name], weight.name)
        for weight in survey.weights
        for site in weight.sites
        if (role := roles(site.module).get(site.attribute)) and role.kind == "linear" and weight.kind != "attention"
    ]
    return {max(found)[1]} if found else set()


def _gmp(survey: Survey) -> set[str]:
    """What Zhu & Gupta (2017) leave dense in MobileNet: the first convolution and every depthwise one."""
    return _first_conv(survey) | _depthwise(survey)


EXEMPTIONS: dict[str, Callable[[Survey], set[str]]] = {
    "first-conv": _first_conv,
    "depthwise": _depthwise,
    "gmp": _gmp,
    "last-linear": _last_linear,
    "embedding": _embedding,
}


def _patterns(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)  # one name without brackets is one name, not its letters


def _known(given: Sequence[str], known: Iterable[str], what: str) -> list[str]:
    for name in _patterns(given):
        if name not in known:
            raise BadInput(f"{what}={name!r}: choose from {', '.join(known)}{near(name, known)}")
    return list(_patterns(given))


def _named(survey: Survey, patterns: tuple[str, ...], what: str) -> dict[str, str]:
    """The weights that ``patterns`` name, each with words for why."""
    found: dict[str, str] = {}
    for pattern in patterns:
        if what == "exclude" and any(_fits(pattern, _left_handles(item)) for item in survey.left):
            hits = [w for w in survey.weights if _fits(pattern, _handles(w))]  # naming what is left alone anyway does no harm
        else:
            hits = list(matching(survey, pattern, what))
        for weight in hits:
            found.setdefault(weight.name, f"named by {what}={pattern!r}")
    return found


def _exempted(survey: Survey, rules: list[str]) -> dict[str, str]:
    return {name: f"exempt by the rule {rule!r}" for rule in reversed(rules) for name in EXEMPTIONS[rule](survey)}


def _handles(weight: Weight) -> set[str]:
    """What a weight goes by: its names and the paths of the modules that hold it."""
    return _with_modules([weight.name, *weight.aliases])


def _left_handles(item: Left) -> set[str]:
    return _with_modules([item.name])


def _with_modules(names: list[str]) -> set[str]:
    return {*names, *(name.rpartition(".")[0] for name in names)} - {""}


def _fits(pattern: str, handles: set[str]) -> bool:
    return pattern in handles or any(fnmatchcase(handle, pattern) for handle in handles)


def _hint(survey: Survey, pattern: str) -> str:
    inside = [name for name in survey.names if name.startswith(f"{pattern}.")]
    if inside:
        return f"; {pattern + '.*'!r} would match the {len(inside)} prunable in it"
    known = sorted(set().union(*map(_handles, survey.weights), *map(_left_handles, survey.left)))
    return near(pattern, known) or f"; there is {_some(known)}"


def _nothing(survey: Survey) -> str:
    """The message for an empty selection: what there was, and why each was left."""
    if not survey.left:
        return "nothing to prune: the model has no parameters"
    by_reason: dict[str, list[str]] = {}
    for item in survey.left:
        by_reason.setdefault(item.reason, []).append(item.name)
    lines = [f"{_some(names)}: {reason}" for reason, names in list(by_reason.items())[:6]]
    return "nothing to prune: every parameter is left alone. " + "; ".join(lines)


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
