"""The families' networks, rivals, resumable runs and page."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.families import compare, cost, data, order, page, results, train
from benchmarks.families.grid import runs
from benchmarks.families.nets.mobilenet import MobileNet
from benchmarks.families.nets.resnet import ResNet
from benchmarks.families.nets.translator import Translator
from benchmarks.families.nets.wordlm import WordLM
from benchmarks.families.schedule import learning_rate
from benchmarks.families.setting import Run, Setting, shrunk
from benchmarks.families.settings import CARD_OF, SIZES
from benchmarks.families.tasks import make_task
from benchmarks.families.tasks.translation import batches
from secateurs.measure import payload_bytes

DATA = os.environ.get("SECATEURS_DATA")


def _millions(model: nn.Module) -> float:
    """Learned parameters without those of norms, as the paper counts them."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in norms) / 1e6


@pytest.mark.parametrize(("width", "millions"), [(200, 4.65), (650, 19.78), (1500, 66.02)])
def test_word_lstm_has_the_published_sizes(width: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(WordLM(width)), 2) == millions


@pytest.mark.parametrize(("width", "millions"), [(1.0, 4.21), (0.75, 2.57), (0.5, 1.32), (0.25, 0.46)])
def test_mobilenet_has_the_published_sizes(width: float, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(MobileNet(width)), 2) == millions


def test_mobilenet_exemptions_are_one_percent() -> None:
    with torch.device("meta"):
        model = MobileNet()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    spared = sum(m.weight.numel() for m in convolutions if m.groups > 1) + convolutions[0].weight.numel()
    assert round(spared / (_millions(model) * 1e6), 3) == 0.011


@pytest.mark.parametrize(("width", "millions"), [(256, 34.2), (512, 80.8), (768, 139.7), (1024, 210.9)])
def test_translator_has_the_published_sizes(width: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(_millions(Translator(width, words=36_548, layers=4)), 1) == millions


def test_resnet56_has_its_size_and_refuses_other_depths() -> None:
    with torch.device("meta"):
        assert round(_millions(ResNet(56)), 2) == 0.85
    with pytest.raises(ValueError, match="depth=18"):
        ResNet(18)


@pytest.mark.parametrize("width", [5, 16])
def test_resnet_shortcut_pads_channels(width: int) -> None:
    model = ResNet(8, width).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.skipif(not DATA, reason="SECATEURS_DATA is not set")
def test_reference_resnet56_loads_and_classifies() -> None:
    from safetensors.torch import load_file

    from benchmarks.families.tasks.cifar import normalised

    model = ResNet(56).eval()
    model.load_state_dict(load_file(data.root() / "models" / "cifar10-resnet56.safetensors"))
    pixels, labels = data.images(data.root(), "test")
    with torch.no_grad():
        found = model(normalised(pixels[:500])).argmax(1)
    assert int((found == torch.from_numpy(np.array(labels[:500]))).sum()) > 425


def test_data_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECATEURS_DATA", raising=False)
    with pytest.raises(ValueError, match="SECATEURS_DATA"):
        data.root()
    with pytest.raises(ValueError, match="no folder named 'data'"):
        data.root(tmp_path)


def test_translation_ignores_padding() -> None:
    torch.manual_seed(0)
    model = Translator(8, words=20, layers=3).eval()
    source, target = torch.randint(3, 20, (4, 1)), torch.randint(3, 20, (5, 1))
    wider = torch.cat([source, torch.zeros(3, 1, dtype=torch.long)])
    length = torch.tensor([4])
    torch.testing.assert_close(model(source, length, target), model(wider, length, target))


def test_greedy_follows_the_forward_pass() -> None:
    torch.manual_seed(1)
    model = Translator(8, words=12, layers=2).eval()
    source, lengths = torch.randint(3, 12, (4, 2)), torch.tensor([4, 3])
    said = model.greedy(source, lengths, begin=1, end=2, most=6)
    fed = torch.cat([torch.full((1, 2), 1), said[:-1]])
    assert torch.equal(model(source, lengths, fed).argmax(-1), said)


def test_sentence_batches_are_a_permutation_of_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, (1000, 2))
    found = batches(lengths, 10, seed=3, epoch=1)
    assert sorted(found.flatten().tolist()) == list(range(1000))
    assert np.ptp(lengths[found, 1], axis=1).mean() < 5
    assert np.array_equal(found, batches(lengths, 10, seed=3, epoch=1))
    assert not np.array_equal(found, batches(lengths, 10, seed=3, epoch=2))


def test_order_of_images_covers_an_epoch_and_depends_on_seed_and_step() -> None:
    epoch = np.concatenate([order.shuffled(10, 5, seed=1, step=s) for s in (2, 3)])
    assert sorted(epoch.tolist()) == list(range(10))
    assert order.mixed(1, 2) != order.mixed(2, 1) and order.mixed(1, 2) == order.mixed(1, 2)


def test_learning_rate_warms_up_and_ends_low_or_steps_down() -> None:
    setting = Setting("none", "tiny", 4, {}, steps=100, batch=2, optimizer="sgd", lr=0.4)
    assert [round(learning_rate(setting, s), 4) for s in (0, 4, 5)] == [0.08, 0.4, 0.4]
    assert learning_rate(setting, 99) < 0.001
    stepped = replace(setting, decay={"epoch": 10, "hold": 2, "factor": 2})
    assert [learning_rate(stepped, s) for s in (0, 19, 20, 30)] == [0.4, 0.4, 0.2, 0.1]


class Tiny:
    """A task of the runner's shape: sums of noisy inputs, a carry that must survive a resume."""

    metric, better = "error", "lower"

    def __init__(self, setting: Setting):
        self.setting = setting

    def widths(self) -> list[int]:
        return list(range(1, int(self.setting.width) + 1))

    def build(self, width: float) -> nn.Module:
        return nn.Sequential(nn.Linear(6, int(width)), nn.Tanh(), nn.Dropout(0.1), nn.Linear(int(width), 1))

    def prepare(self) -> None: ...

    def start(self, model: nn.Module) -> Tensor:
        return torch.zeros(1)

    def loss(self, model: nn.Module, seed: int, step: int, carry: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(np.random.default_rng([seed, step]).normal(size=(8, 6))).float()
        found = model(x) + 0.01 * carry
        return F.mse_loss(found, x.sum(1, keepdim=True)), found.detach().mean(0)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> float:
        x = torch.linspace(-1, 1, 60).view(10, 6)
        return float(F.mse_loss(model(x), x.sum(1, keepdim=True)))


TINY = Setting("none", "tiny", 12, {}, steps=30, batch=8, optimizer="adam", lr=0.01, clip=1.0, sparsities=(0.5, 0.75),
               orders={"layerwise": (0.75,)}, every=4)  # fmt: skip


@pytest.mark.parametrize("sparsity", [0.0, 0.75])
def test_killed_and_resumed_run_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparsity: float) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY", 7)
    run = Run(TINY, "short", 12, seed=3, sparsity=sparsity)
    whole = train.run_one(run, Tiny(TINY), tmp_path / "whole.pt")

    def killed(step: int) -> None:
        if step == 19:  # in the middle of the ramp, five steps behind the last checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.run_one(run, Tiny(TINY), tmp_path / "cut.pt", killed)
    steps: list[int] = []
    resumed = train.run_one(run, Tiny(TINY), tmp_path / "cut.pt", steps.append)
    assert steps[0] == 15
    assert {**resumed, "training_seconds": 0} == {**whole, "training_seconds": 0}
    assert whole["sparsity_reached"] == (pytest.approx(0.75, abs=0.01) if sparsity else None)
    json.dumps(whole)


def test_rival_is_the_narrowest_with_as_many_bytes() -> None:
    task = Tiny(TINY)
    widths = cost.rivals(task, [0.5, 0.75])
    for sparsity, width in widths.items():
        planned = cost.planned_bytes(task.build(12), TINY, sparsity)
        assert payload_bytes(task.build(width)) >= planned > payload_bytes(task.build(width - 1))
    # 72 + 12 weights at 75 %: (18 + 3) * 4 + 9 + 2 bytes of values and masks, 13 biases
    assert cost.planned_bytes(task.build(12), TINY, 0.75) == 84 + 11 + 52


def test_stored_bytes_take_the_smaller_form() -> None:
    state = {"dense": torch.ones(10), "sparse": torch.tensor([1.0] * 3 + [0.0] * 13), "count": torch.tensor(5)}
    assert cost.stored_bytes(state) == 40 + (2 + 12) + 8


def test_planned_bytes_are_those_of_the_finished_run(tmp_path: Path) -> None:
    record = train.run_one(Run(TINY, "short", 12, 0, 0.75), Tiny(TINY), tmp_path / "x.pt")
    assert record["payload_bytes"] == cost.planned_bytes(Tiny(TINY).build(12), TINY, 0.75)


def test_grid_has_every_run_once_with_names_of_their_own() -> None:
    found = runs(Tiny(TINY), "short", range(2))
    kinds = [(r.sparsity, r.order) for r in found if r.seed == 0 and r.sparsity]
    assert kinds == [(0.5, "all"), (0.75, "all"), (0.75, "layerwise")]
    rivals = set(cost.rivals(Tiny(TINY), TINY.sparsities).values())
    assert len({r.name for r in found}) == len(found) == 2 * (1 + 3 + len(rivals))
    assert Run(replace(TINY, lr=0.02), "short", 12, 0).name != Run(TINY, "short", 12, 0).name


@pytest.mark.parametrize("size", sorted(SIZES))
def test_settings_build_and_have_rivals(size: str, tmp_path: Path) -> None:
    for setting in SIZES[size]:
        assert CARD_OF[setting.model].model in {s.model for s in SIZES["card"]}
        widths = cost.rivals(make_task(setting, tmp_path), setting.sparsities[-1:])
        assert 0 < widths[setting.sparsities[-1]] < setting.width


def test_shrunk_names_what_differs() -> None:
    here = replace(TINY, steps=10)
    assert shrunk(here, TINY) == {"steps": [10, 30]} and shrunk(TINY, TINY) == {}


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
    for record in RECORDS:
        results.add(tmp_path / "cifar-short.jsonl", record)
    text = page.section(tmp_path, tmp_path / "img")
    row = "| 80 % | 70.50 ± 0.50 | 990 B | 990 B | 247 | 0.600 | width 4 | 1.0 kB | 61.00 ± 1.00 | +9.50 ± 0.50 | sparse |"
    assert row in text
    assert "at 80 % the large sparse network is better; at 90 % the seeds disagree; the widest gap is +9.50 points" in text
    assert "steps 10 (for 100)" in text
    assert (tmp_path / "img" / "families-cifar-short-resnet-8.png").stat().st_size > 1000
    assert page.section(tmp_path, tmp_path / "img") == text


def test_page_without_results_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.families\.run"):
        page.section(tmp_path, tmp_path)


def test_results_replace_a_run_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for value in (1, 2):
        results.add(path, {"run": "a", "test": value})
        results.add(path, {"run": "b", "test": value})
    assert results.read(path) == [{"run": "a", "test": 2}, {"run": "b", "test": 2}] and not list(tmp_path.glob("*.part"))
