"""Random masks whose layer ratios are another criterion's get batches to take them from."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.comparing.running.artefacts import Artefacts
from secateurs.comparing.running.cell import Cell
from secateurs.comparing.running.execute import execute
from secateurs.comparing.running.protocols import stage_of
from secateurs.comparing.running.task import ready
from secateurs.train import prune
from tests.comparing.toys import run, start


@pytest.mark.parametrize("allocation", ["snip", "grasp"])
def test_ratios_are_taken_from_the_batches_of_the_cell(allocation: str, tmp_path: Path) -> None:
    execute(start(), tmp_path)
    it = run(method="random", allocation=allocation)
    cell = Cell(it, ready(it.task), Artefacts(tmp_path))
    found = stage_of(cell).session
    assert found is not None
    dense = cell.beginning().model.eval()
    by_hand = prune(dense, "random", sparsity=0.5, allocation=allocation, calibration=cell.calibration(), loss=cell.ready.loss)
    assert found.masks.kept() == by_hand.plan.masks.kept() and sum(found.masks.kept().values()) == 54
