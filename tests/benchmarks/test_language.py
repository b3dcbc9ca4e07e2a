"""The language benchmark: its grid, its rows on a tiny model, its page, and the real model's perplexity where it is."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.language import one, page, run, text
from benchmarks.language.grid import CALIBRATED, DOMAINS, MIXED, POINTS, Cell, cells, chosen
from secateurs.comparing.store import read_rows


class Tiny(nn.Module):
    """A language model of eight words with two blocks; ``head`` lies outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.embed, self.head = nn.Embedding(8, 40), nn.Linear(40, 8, bias=False)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(nn.Sequential(nn.Linear(40, 80), nn.ReLU(), nn.Linear(80, 40)) for _ in range(2))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        x = self.embed(input_ids)
        for name in ("layers.0", "layers.1"):
            x = x + self.model.get_submodule(name)(x)
        logits = self.head(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A tiny model and text in place of the real ones."""
    torch.manual_seed(0)
    model = Tiny()
    ids = torch.randint(8, (4, 12))
    monkeypatch.setattr(text, "dense", lambda: model)
    monkeypatch.setattr(text, "calibration", lambda source, seed: [{"input_ids": ids}])
    monkeypatch.setattr(text, "validation", lambda domain, most: [{"input_ids": ids, "labels": ids}])
    return model


def test_every_model_of_the_grid_comes_once_and_the_telling_ones_first() -> None:
    found = cells(64)
    names = [cell.name for cell in found]
    assert len(set(names)) == len(names) == 1 + 4 + 3 * 4 * 5 * 3 + 6
    first = chosen(["dense", "magnitude-*", "*-mixed-0"], found)
    assert found[: len(first)] == first and len(first) == 1 + 4 + 3 * 4
    assert {(c.method, c.seed) for c in found[17:23]} == set(product(CALIBRATED, (1, 2)))
    assert all(c.windows == 64 for c in found) and names[4] == "gblm-60-mixed-0" and "wanda-2of4-brown-2" in names
    assert chosen([], found) == found
    with pytest.raises(ValueError, match="'wonda-"):
        chosen(["wonda-60-mixed-0"], found)


@pytest.mark.parametrize(("method", "point"), list(product(("magnitude", *CALIBRATED), POINTS)))
def test_rows_count_the_zeros_inside_the_blocks_alone(tiny: nn.Module, method: str, point: str) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    row = one.execute(Cell(method, point, None if method == "magnitude" else MIXED), Path(), lambda *told: None)
    assert row["weights"] == 4 * 40 * 80 and row["zeros"] == {"60 %": 3}.get(point, 2.5) * row["weights"] / 5
    assert set(row["perplexity"]) == set(row["windows"]) == set(DOMAINS) and row["windows"]["brown"] == 4
    assert row["geometric_mean"] == pytest.approx(row["perplexity"]["brown"]) and row["tokens"] in (0, 48)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.state_dict().items())


def test_a_run_goes_on_where_it_was_and_refuses_other_windows(
    tiny: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "work", lambda todo, folder, **how: (how["execute"](cell, folder, print) for cell in todo))
    said = ["--out", str(tmp_path), "--windows", "4"]
    assert run.main([*said, "--only", "dense"]) == 0
    assert run.main([*said, "--only", "dense", "magnitude-*"]) == 0
    rows, warnings = read_rows(tmp_path / "results.jsonl")
    assert [row["method"] for row in rows] == ["dense", *["magnitude"] * 4] and not warnings
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 5 and str(tmp_path) not in json.dumps(rows)
    with pytest.raises(ValueError, match=r"--windows 5: .* measured with 4"):
        run.main(["--out", str(tmp_path), "--windows", "5"])


def test_a_failure_is_a_row_and_an_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "work", lambda todo, folder, **how: (how["failed"](c, ValueError("no luck"), 1.0) for c in todo))
    assert run.main(["--out", str(tmp_path), "--only", "dense"]) == 1
    assert read_rows(tmp_path / "results.jsonl")[0][0]["error"] == {"type": "ValueError", "message": "no luck"}
    with pytest.raises(ValueError, match="no row of the dense model"):
        page.section(tmp_path / "results.jsonl")


def _row(method: str, point: str | None, source: str | None, seed: int, values: list[float]) -> dict[str, Any]:
    cell = Cell(method, point, source, seed, windows=3)
    return {**one._head(cell, "done"), "perplexity": dict(zip(DOMAINS, values, strict=True)), "length": 256, "tokens": 32768,
            "geometric_mean": math.prod(values) ** 0.25, "windows": dict.fromkeys(DOMAINS, 3), "seconds": 2.0, "threads": 1,
            "cpus": 2}  # fmt: skip


def _page(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return page.section(path)


def test_page_says_which_method_loses_least_and_in_how_many_seeds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.language\.run"):
        page.section(tmp_path / "results.jsonl")
    dense, magnitude = _row("dense", None, None, 0, [10.0] * 4), _row("magnitude", "60 %", None, 0, [14.0] * 4)
    wanda = [_row("wanda", "60 %", MIXED, seed, [value] * 4) for seed, value in enumerate((13.0, 15.0, 13.5))]
    said = _page(tmp_path, [dense, magnitude, *wanda])
    assert "3 at equal distances" in said and "32,768 tokens" in said
    assert "| wanda | 60 % | 13.00 | 13.00 | 13.00 | 13.00 | 13.00 | 2 s |" in said
    assert "60 %: mean perplexity as a multiple of the dense model's: wanda 1.300, magnitude 1.400." in said
    assert "wanda is below magnitude in 2 of 3 seeds, on average by 0.17." in said and "up to 2.00 (wanda)" in said
    assert "| wanda | 13.00 | 15.00 | 13.50 | 13.83 |" in said and "calibration text\n\n| method | calibrated on" not in said
    only = _page(tmp_path, [dense, magnitude])
    assert "over seeds" not in only and "multiple" not in only


def test_page_compares_own_domain_and_foreign(tmp_path: Path) -> None:
    dense = _row("dense", None, None, 0, [10.0] * 4)
    rows = [_row("wanda", "50 %", DOMAINS[i], 0, [12.0 if i == j else 15.0 for j in range(4)]) for i in range(4)]
    rows[3]["perplexity"]["captions-en"] = 11.0  # Python calibrates better for it than it does itself
    said = _page(tmp_path, [dense, *rows])
    foreign = (1.5**11 * 1.1) ** (1 / 12)
    assert f"its perplexity is 1.200 times the dense model's; calibrated on another domain {foreign:.3f} times." in said
    assert "On 3 of 4 domains its own text is the best of the four (not on captions-en)." in said
    assert "| wanda | brown | 15.00 | 15.00 | **12.00** | 15.00 |" in said
    assert "own text" not in _page(tmp_path, [dense, *rows[:3]])


def test_rows_of_other_windows_are_refused(tmp_path: Path) -> None:
    other = _row("magnitude", "50 %", None, 0, [14.0] * 4) | {"windows": dict.fromkeys(DOMAINS, 4)}
    with pytest.raises(ValueError, match="magnitude-50 was not judged on the windows"):
        _page(tmp_path, [_row("dense", None, None, 0, [10.0] * 4), other])


@pytest.mark.slow
def test_windows_of_the_real_text(data: Path) -> None:
    batches = text.validation("captions-en", 3)
    every = torch.cat([batch["input_ids"] for batch in text.validation("captions-en", None)])
    assert len(every) == 375 and torch.equal(batches[0]["input_ids"], every[[0, 125, 250]])
    mixed = torch.cat([batch["input_ids"] for batch in text.calibration(MIXED, 0)])
    single = torch.cat([batch["input_ids"] for batch in text.calibration("brown", 0)])
    assert mixed.shape == single.shape == (128, 256)
    again, other = (torch.cat([b["input_ids"] for b in text.calibration(MIXED, seed)]) for seed in (0, 1))
    assert torch.equal(mixed, again) and not torch.equal(mixed, other)


@pytest.mark.slow
def test_the_real_model_has_its_known_perplexity(data: Path) -> None:
    row = one.execute(Cell("dense"), Path(), lambda *told: None)
    assert [round(value, 2) for value in row["perplexity"].values()] == [13.86, 12.98, 52.99, 24.99]


def test_page_says_whether_an_allocation_spares_what_costs_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {"sparsity": 0.6, "method": "wanda", "windows": 4, "alone": [1.2, 1.0, 1.1], "shares": {"owl": [0.7, 0.5, 0.6]}}
    (tmp_path / "blocks.json").write_text(json.dumps({"blocks": blocks}))
    monkeypatch.setattr(page, "BLOCKS", tmp_path / "blocks.json")
    owl = {"allocation": "owl", "run": "wanda-60-mixed-0-owl"}
    rows = [_row("wanda", "60 %", MIXED, 0, [13.0] * 4), _row("wanda", "60 %", MIXED, 0, [14.0] * 4) | owl]
    said = _page(tmp_path, [_row("dense", None, None, 0, [10.0] * 4), *rows])
    assert "| wanda | uniform | 13.00" in said and "| wanda | owl | 14.00" in said and "| 0 | 1.200 | 70.0% |" in said
    assert "owl takes 70.0% from block 0, which costs most alone; that is its 1st largest share of 3." in said
    assert "by how much goes" not in _page(tmp_path, [_row("dense", None, None, 0, [10.0] * 4), rows[0]])
