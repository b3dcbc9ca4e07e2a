"""The results page's sections on the comparison and the oracle studies say what the rows say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison import oracle, page
from tests.comparing.made_up import rows
from tests.comparing.studies.conftest import make_cell_row

pytest.importorskip("scipy")


def _write(path: Path, found: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def test_comparison_has_a_picture_findings_and_a_table_per_task(tmp_path: Path) -> None:
    _write(tmp_path / "results.jsonl", rows(tasks=("digits", "letters")))
    said = page.section(tmp_path / "results.jsonl", tmp_path / "img", tmp_path / "pages")
    pictures = [f"made-up-{task}.png" for task in ("digits", "letters")]
    assert sorted(path.name for path in (tmp_path / "img").iterdir()) == pictures
    assert all(f"(img/{name})" in said for name in pictures) and "### digits\n" in said
    assert "'gmp' has the highest mean" in said and "| gmp | 93.10 ± 0.06 |" in said and "Before you compare:" in said
    assert page.section(tmp_path / "results.jsonl", tmp_path / "img", tmp_path / "pages") == said
    assert "<html" in (tmp_path / "pages" / "made-up.html").read_text(encoding="utf-8")


def test_studies_have_a_picture_a_verdict_and_the_published_numbers(tmp_path: Path) -> None:
    cells = [((i, i + 1), repeat, 0.1 * i, 0.95 - 0.01 * i, 0.1) for i in range(4) for repeat in (0, 1)]
    _write(tmp_path / "oracle-tiny" / "results.jsonl", (make_cell_row(*cell) for cell in cells))
    said = oracle.section(tmp_path, tmp_path / "img")
    assert (tmp_path / "img" / "tiny.png").stat().st_size > 1000 and "(img/tiny.png)" in said
    assert "4 of the 10 ways to remove" in said and "top-1 after is -1.00" in said and "### Published" in said


def test_sections_without_results_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks/recipes/fair\.yaml"):
        page.section(tmp_path / "results.jsonl", tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no oracle study"):
        oracle.section(tmp_path, tmp_path)
