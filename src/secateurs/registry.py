"""Every method by name. One line each; the file is imported when the method is asked for."""

from __future__ import annotations

import importlib

from secateurs.core.method import Method
from secateurs.errors import BadInput, near

__all__ = ["METHODS", "find_method", "methods"]

METHODS = {
    "gmp": "secateurs.papers.weights.gmp:Gmp",
    "magnitude": "secateurs.papers.weights.magnitude:Magnitude",
    "global-magnitude": "secateurs.papers.weights.global_magnitude:GlobalMagnitude",
    "random": "secateurs.papers.weights.random:Random",
    "taylor": "secateurs.papers.weights.taylor:Taylor",
    "lottery": "secateurs.papers.weights.lottery:Lottery",
    "lottery-rewind": "secateurs.papers.weights.lottery_rewind:LotteryRewind",
    "sap": "secateurs.papers.weights.sap:Sap",
    "ap": "secateurs.papers.weights.ap:Ap",
    "set": "secateurs.papers.weights.set:Set",
    "rigl": "secateurs.papers.weights.rigl:Rigl",
    "granet": "secateurs.papers.weights.granet:GraNet",
    "journey": "secateurs.papers.weights.journey:Journey",
    "perp": "secateurs.papers.weights.perp:Perp",
    "woodfisher": "secateurs.papers.weights.woodfisher:WoodFisher",
    "m-fac": "secateurs.papers.weights.m_fac:MFac",
    "bip": "secateurs.papers.weights.bip:Bip",
    "wanda": "secateurs.papers.language.wanda:Wanda",
    "sparsegpt": "secateurs.papers.language.sparsegpt:SparseGpt",
    "gblm": "secateurs.papers.language.gblm:Gblm",
    "l1-filters": "secateurs.papers.structures.l1_filters:L1Filters",
    "random-channels": "secateurs.papers.structures.random_channels:RandomChannels",
    "taylor-channels": "secateurs.papers.structures.taylor_channels:TaylorChannels",
    "depgraph": "secateurs.papers.structures.depgraph:DepGraph",
    "obspa": "secateurs.papers.structures.obspa:Obspa",
}


def find_method(name: str) -> type[Method]:
    """The method called ``name``.

    Raises:
        BadInput: no such method; the message lists near matches and all names.
    """
    if name not in METHODS:
        raise BadInput(f"method {name!r} is unknown; there are {', '.join(METHODS)}" + near(name, METHODS))
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def methods() -> list[type[Method]]:
    """All methods, in the order of the registry: ``.name``, ``.prunes``, ``.when``, ``.needs``, ``.paper``, ``.facts()``."""
    return [find_method(name) for name in METHODS]
