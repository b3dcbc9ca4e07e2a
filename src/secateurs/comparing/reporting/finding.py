"""An item of the checklist, and how the checks read rows and name entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateurs.comparing.reporting.points import Entry, TaskResults
from secateurs.report.rows import Row

__all__ = ["NOTE", "PASSED", "WARNING", "Finding", "label", "said", "where"]

WARNING, NOTE, PASSED = "warning", "note", "passed"


@dataclass(frozen=True)
class Finding:
    """One item of the checklist: ``warning``, ``note`` (meant so, or mild) or ``passed``, and why, in a sentence."""

    level: str
    text: str


def label(entry: Entry) -> str:
    """``"'gmp' at 90 %"``."""
    return f"'{entry.arm}'" + (f" at {entry.point}" if entry.point else "")


def where(task: TaskResults, entry: Entry) -> str:
    """``"'gmp' at 90 % of 'mnist'"``."""
    return f"{label(entry)} of '{task.name}'"


def said(row: Row, key: str) -> Mapping[str, Any]:
    """What determined a row, by ``task``, ``arm`` or ``point``; empty where the row does not say."""
    return (row.get("determined_by") or {}).get(key) or {}
