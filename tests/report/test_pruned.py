"""The page of a pruning, from plain data."""

import copy
import re

import pytest

from secateurs.report.pruned import block_of, pruning_page
from tests.report.test_page import NASTY, Reader


def row(name, size, removed, **more):
    return {"name": name, "shape": [4, size // 4], "size": size, "kept": size - removed, "removed": removed,
            "sparsity": removed / size, **more}  # fmt: skip


ROWS = [
    row("encoder.0.q.weight", 40, 20, error=0.25), row("encoder.0.fc.weight", 60, 15, error=0.5),
    row("encoder.1.q.weight", 40, 40), row("decoder.0.q.weight", 40, 0, error=0.125), row("total", 180, 75),
]  # fmt: skip
TOLD = {
    "command": "secateurs prune model --sparsity 0.5", "source": "model", "model": "Tiny", "out": "pruned",
    "recipe": {"method": "sparsegpt", "sparsity": 0.5, "structure": None, "exclude": [], "options": {"dampening": 0.1}},
    "calibration": "8 windows of 16 tokens of a.txt", "report": ROWS,
    "sizes": {"before": {"parameters": 200, "nonzero": 200, "stored_bytes": 1600},
              "after": {"parameters": 200, "nonzero": 125, "stored_bytes": 1100}},
    "perplexity": {"before": 12.5, "after": None, "text": "b.txt", "windows": 3, "length": 16, "convention": "exp of the mean"},
    "left": [{"name": f"norm.{i}", "shape": [4], "size": 4, "reason": "part of a normalisation"} for i in range(5)],
    "rare": [["experts.0", 3, 1]], "speed": "not faster",
    "memory": {"budget_bytes": 2_000_000_000, "peak_bytes": 2_100_000_000, "kept": False},
    "verified": {"ok": True, "checks": [{"name": "exact counts", "ok": True, "detail": "75 of 180"}]},
}  # fmt: skip


@pytest.fixture
def page():
    pytest.importorskip("jinja2")
    return Reader(pruning_page(TOLD))


def test_the_page_says_what_was_done(page):
    said = [text.strip() for text in page.text if text.strip()]
    whole = " ".join(said)
    for text in ("Tiny, pruned by sparsegpt", "75 of 180 chosen weights were removed (41.67 %), one by one.",
                 "exact counts: 75 of 180", "memory: at most 2.1 GB of 2 GB allowed", "12.5000", "infinite", "0 (0.00 %)",
                 "75 (37.50 %)", "1.6 kB", "1.1 kB",
                 "Perplexity on b.txt, 3 windows of 16 tokens: exp of the mean.", "Speed: not faster.",
                 "norm.0, norm.1, norm.2 and 2 more", "experts.0", "Calibrated on 8 windows of 16 tokens of a.txt.",
                 "secateurs prune model --sparsity 0.5", 'options: {"dampening": 0.1}'):  # fmt: skip
        assert text in whole, text
    assert "exclude:" not in whole and "structure:" not in whole
    assert said.index("Over the blocks") < said.index("Left alone") < said.index("Rare experts") < said.index("Every layer")
    assert [text for text in said if text in ("passed", "failed")] == ["passed", "failed"]


def test_the_picture_has_a_bar_per_block_and_a_dot_per_error(page):
    titles = [text for text in page.text if re.fullmatch(r"\S+: [\d.]+( %)?", text)]
    assert titles == ["encoder.0: 35.00 %", "encoder.1: 100.00 %", "decoder.0: 0.00 %", "encoder.0.q.weight: 0.25",
                      "encoder.0.fc.weight: 0.5", "decoder.0.q.weight: 0.125"]  # fmt: skip
    assert [tag for tag, _ in page.tags].count("rect") == 3 and [tag for tag, _ in page.tags].count("circle") == 3
    assert page.text.count("encoder") == page.text.count("decoder") == 2  # the name of the list, in both panels


def test_a_method_without_data_has_no_errors_to_show():
    pytest.importorskip("jinja2")
    few = {key: TOLD[key] for key in ("out", "verified")} | {"recipe": {"method": "magnitude", "structure": "2:4"}}
    few |= {"report": [row("0.weight", 40, 20), row("2.weight", 8, 4), row("total", 48, 24)]}
    html = pruning_page(few)
    page = Reader(html)
    assert "A model, pruned by magnitude" in page.text and "in the pattern 2:4" in html
    assert not [tag for tag, _ in page.tags if tag == "circle"]
    for heading in ("Before and after", "Left alone", "Rare experts", "Memory"):
        assert heading not in page.text


def test_it_needs_nothing_else_and_obeys_nothing():
    pytest.importorskip("jinja2")
    told = copy.deepcopy(TOLD) | {"model": NASTY, "command": NASTY, "calibration": NASTY, "out": NASTY}
    told["left"][0]["name"] = told["left"][0]["reason"] = told["report"][0]["name"] = NASTY
    html = pruning_page(told)
    page = Reader(html)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "img")]
    assert not re.search(r"https?:|@import|url\(", html)
    assert "<script>" not in html and sum(NASTY in text for text in page.text) >= 6


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("model.layers.11.mlp.up_proj.weight", ("model.layers", "11")),
        ("encoder.block.0.layer.1.fc.weight", ("encoder.block", "0")),
        ("0.weight", ("", "0")),
        ("classifier.weight", ("classifier.weight", "")),
    ],
)
def test_the_block_of_a_layer(layer, block):
    assert block_of(layer) == block
