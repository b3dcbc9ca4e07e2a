"""The families' section of the results page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.families import compare, page


def _record(seed: int, test: float, size: int, width: float = 8, sparsity: float = 0, order: Any = None) -> dict[str, Any]:
    return {
        "run": f"{width}-{sparsity}-{order}-{seed}", "family": "cifar", "model": "resnet-8", "size": "short", "width": width,
        "method": "gmp" if sparsity else "dense", "sparsity": sparsity, "order": order, "seed": seed, "metric": "top-1 %",
        "better": "higher", "validation": test, "test": test, "parameters": 1000, "nonzeros": size // 4, "payload_bytes": size,
        "paper_bytes": size, "average_density": 1 - sparsity / 2, "steps": 10, "batch": 4, "optimizer": "sgd", "lr": 0.1,
        "begin": 0.1, "end": 0.65, "every": 2, "bfloat16": False, "training_seconds": 1.0, "shrunk": {"steps": [10, 100]},
    }  # fmt: skip


RECORDS = [
    *(_record(s, v, 4000) for s, v in ((0, 80.0), (1, 82.0))),
    *(_record(s, v, 1000, 4) for s, v in ((0, 60.0), (1, 62.0))),
    *(_record(s, v, 500, 2) for s, v in ((0, 50.0), (1, 50.0))),
    *(_record(s, v, 990, 8, 0.8, "all") for s, v in ((0, 70.0), (1, 71.0))),
    *(_record(s, v, 490, 8, 0.9, "all") for s, v in ((0, 51.0), (1, 49.0))),
]


def test_comparison_takes_the_narrowest_rival_and_pairs_seeds() -> None:
    found = compare.points(RECORDS)
    eighty, ninety = compare.compared(found, "higher")
    assert (eighty.dense.width, eighty.gains, eighty.gain, eighty.winner) == (4, (10.0, 9.0), 9.5, "sparse")
    assert (ninety.dense.width, ninety.gains, ninety.winner) == (2, (1.0, -1.0), "neither")
    assert compare.large(found).mean == 81.0 and compare.large(found).spread == 1.0
    assert [c.winner for c in compare.compared(found, "lower")] == ["dense", "neither"]


def test_page_says_what_the_numbers_say(tmp_path: Path) -> None:
    (tmp_path / "cifar-short.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    text = page.section(tmp_path, tmp_path / "img")
    row = "| 80 % | 70.50 ± 0.50 | 990 B | 990 B | 247 | 0.600 | width 4 | 1.0 kB | 61.00 ± 1.00 | +9.50 ± 0.50 | sparse |"
    assert row in text
    assert "at 80 % the large sparse network is better; at 90 % the seeds disagree; the widest gap is +9.50 points" in text
    assert "steps 10 (for 100)" in text
    assert (tmp_path / "img" / "families-cifar-short-resnet-8.png").stat().st_size > 1000
    assert page.section(tmp_path, tmp_path / "img") == text


def test_page_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results in"):
        page.section(tmp_path, tmp_path)
