"""``secateurs methods``."""

from __future__ import annotations

from secateurs.cli.showing import dump, facts, show
from secateurs.registry import methods
from secateurs.report import Table

__all__ = ["list_methods"]


def list_methods(as_json: bool) -> None:
    """Print every method's facts."""
    found = [method.facts() for method in methods()]
    if as_json:
        dump(found)
        return
    lines = tuple((m["name"], ", ".join(m["prunes"]), m["when"], ", ".join(m["needs"]) or "nothing") for m in found)
    show(Table(("method", "prunes", "when", "needs"), (lines,), left=4))
    facts({m["name"]: f"{m['summary']}. {m['paper']}" for m in found})
