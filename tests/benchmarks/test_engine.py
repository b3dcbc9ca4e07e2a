"""The engine's measurements: what counts as an update, and the section that tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.engine.page import section
from benchmarks.engine.step import EVERY
from benchmarks.engine.updates import METHODS, SPACING, Seen
from secateurs.registry import METHODS as KNOWN


def test_an_update_is_what_its_step_takes_longer_than_any_step_under_masks() -> None:
    """Plain steps of 1 s, steps under masks of 1.1 s, with an update 1.6, 1.7, 1.8 s; the first step does not count."""
    one = Seen(METHODS["set"], 0.9, 100)
    one.times = [1.6 + 0.1 * (i // SPACING) if i % SPACING == SPACING - 1 else 1.1 for i in range(3 * SPACING)]
    one.times[0] = 50.0
    row = one.row([1.0] * len(one.times), 1.0)
    assert row["update_s"] == pytest.approx(0.6) and row["usual_s"] == pytest.approx(0.1)
    assert row["share"] == pytest.approx(0.6 / EVERY)
    assert row["share_low"] <= row["share"] <= row["share_high"]


def test_the_section_tells_every_method(tmp_path: Path) -> None:
    share = {"update_s": 0.05, "share": 0.0125, "share_low": 0.01, "share_high": 0.02, "usual_s": 0.0}
    found = {"updates toy": {"task": "toy", "batch": 4, "weights": 1234567, "every": EVERY, "spacing": SPACING, "updates": 6,
                             "step_s": 0.04, "methods": dict.fromkeys(METHODS, share), "threads": 1, "torch": "2"}}  # fmt: skip
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(found))
    text = section(path)
    assert "| toy, batch 4 | 1,234,567 | granet | 40 ms | 50.0 ms | 1.25 % | 1.00 to 2.00 % |" in text
    assert all(f"| {name} |" in text for name in METHODS)
    assert {said["method"] for said in METHODS.values()} <= KNOWN.keys()
