"""Whether a comparison is fair: a checklist over the rows, each item a sentence with its numbers.

The items follow the checklist of Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020, and the traps that
Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, name. What is in order is said as well: an item that was
checked and passed is not the same as one nobody looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from secateurs.comparing.reporting import fair_design, fair_runs
from secateurs.comparing.reporting.finding import NOTE, PASSED, WARNING, Finding
from secateurs.comparing.reporting.points import Gathered

__all__ = ["CHECKS", "NOTE", "PASSED", "WARNING", "Finding", "check"]

CHECKS: tuple[Callable[[Gathered], Iterator[Finding]], ...] = (
    fair_runs.failed, fair_runs.settings, fair_runs.budgets, fair_runs.seeds, fair_runs.starts, fair_runs.surroundings,
    fair_design.baselines, fair_design.held_out, fair_design.points, fair_design.tasks, fair_design.sizes, fair_design.amounts,
    fair_design.noise,
)  # fmt: skip


def check(gathered: Gathered) -> list[Finding]:
    """All findings: warnings first, then notes, then what passed."""
    found = [finding for look in CHECKS for finding in look(gathered)]
    return sorted(found, key=lambda finding: (WARNING, NOTE, PASSED).index(finding.level))
