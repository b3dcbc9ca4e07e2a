"""Pruning plasticity (Liu et al. 2021, section 3): prune a checkpoint, train on, and see what comes back.

``python -m benchmarks.methods.granet`` trains LeNet-300-100 on MNIST with two drops of the learning rate, prunes copies of
several moments to 95 % by global magnitude, trains each on for 150 steps at the rate of its moment, with one exchange of half
of every layer's weights straight after the cut and without, and writes what was lost and regained to
``benchmarks/runs/methods/granet/plasticity.jsonl``. Killed, it goes on with the seeds that are missing.
"""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs as sc
from benchmarks.methods.tables import RESULTS, compared
from benchmarks.tasks import mnist
from secateurs.comparing.spec import SCHEMA
from secateurs.comparing.store import Results
from secateurs.core.masks import Masks
from secateurs.core.regrow import exchange
from secateurs.measure import accuracy
from secateurs.planning import Plan
from secateurs.report import Table
from secateurs.train import Held

__all__ = ["main", "section"]

FILE = "plasticity.jsonl"
OUT = Path(__file__).parents[1] / "runs" / "methods" / "granet" / FILE
STEPS, AFTER, BATCH = 1800, 150, 100
MOMENTS, DROPS = (180, 540, 864, 1080, 1440, 1764), (900, 1350)  # steps
SPARSITY, SHARE, RATE, SEEDS = 0.95, 0.5, 0.1, 5


def rate_at(step: int) -> float:
    """0.1, and a tenth of what it was at every drop."""
    return float(RATE * 0.1 ** sum(step >= drop for drop in DROPS))


def batch(step: int, seed: int) -> tuple[Tensor, Tensor]:
    """The training images of a step."""
    data = mnist.data()["train"]
    return data.batch(torch.randint(len(data), (BATCH,), generator=torch.Generator().manual_seed(seed * 100_003 + step)))


def train(model: nn.Module, steps: range, seed: int, rate: Callable[[int], float], held: Held | None = None) -> None:
    """SGD with momentum, under the masks of ``held`` if there are any."""
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    if held is not None:
        held.attach(optimizer)
    for step in steps:
        inputs, labels = batch(step, seed)
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def test(model: nn.Module) -> float:
    """Accuracy on the test images."""
    data = mnist.data()["test"]
    return accuracy(model, (data.batch(part) for part in torch.arange(len(data)).split(1000)))


def regained(dense: nn.Module, step: int, seed: int, moved: bool) -> dict[str, Any]:
    """Prune a copy of the model of ``step``, exchange weights if ``moved``, and train on."""
    done = sc.prune(dense, "global-magnitude", sparsity=SPARSITY)
    straight = test(done.model)
    plan = moved_plan(done.model, done.plan, batch(STEPS - 1, seed)) if moved else done.plan
    held = Held(done.model, plan)
    train(done.model, range(STEPS, STEPS + AFTER), seed, lambda _: rate_at(step - 1), held)  # batches it has not seen
    return {"straight": straight, "after": test(held.finish())}


def moved_plan(model: nn.Module, plan: Plan, images: tuple[Tensor, Tensor]) -> Plan:
    """The plan with ``SHARE`` of every layer's weights exchanged for those of the largest gradients, which begin at zero."""
    parameters = {name: model.get_parameter(name) for name in plan.masks}
    found = torch.autograd.grad(F.cross_entropy(model(images[0]), images[1]), list(parameters.values()))
    masks = {}
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        mask = plan.masks[name]
        count = int(SHARE * int(mask.sum()))
        masks[name], grown = exchange(name, parameter.detach(), mask, gradient.abs(), count)
        parameter.data.masked_fill_(grown | ~masks[name], 0)
    return Plan(plan.entries, Masks(masks), plan.recipe)


def rows_of(seed: int) -> list[dict[str, Any]]:
    """All moments of one training."""
    torch.manual_seed(seed)
    model, at, rows = mnist.lenet300(), 0, []
    for moment in MOMENTS:
        train(model, range(at, moment), seed, rate_at)  # the optimizer begins anew at every moment, the same for all
        at, before = moment, test(model)
        for moved in (False, True):
            found = regained(copy.deepcopy(model), moment, seed, moved)
            rows.append({"moment": moment / STEPS, "rate": rate_at(moment - 1), "moved": moved, "before": before, **found})
    return rows


def main() -> int:
    """The seeds that are not done."""
    torch.set_num_threads(1)
    with Results(OUT) as results:
        for seed in range(SEEDS):
            if f"seed-{seed}" not in results.done():
                results.append({"schema": SCHEMA, "run": f"seed-{seed}", "status": "done", "moments": rows_of(seed)})
                print(f"seed {seed} done", flush=True)
    return 0


def section() -> str:
    """The comparison, and plasticity by moment."""
    path = RESULTS / "granet" / FILE
    if not path.is_file():
        return compared("granet")
    rows = [row for line in path.read_text(encoding="utf-8").splitlines() for row in json.loads(line)["moments"]]
    lines = []
    for moment in sorted({row["moment"] for row in rows}):
        still, moved = ([row for row in rows if row["moment"] == moment and row["moved"] is on] for on in (False, True))
        gains = [100 * (b["after"] - a["after"]) for a, b in zip(still, moved, strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5
        lines.append((f"{moment:.0%}", f"{still[0]['rate']:g}", _mean(still, "before"), _mean(still, "straight"),
                      _mean(still, "after"), _mean(moved, "after"),
                      f"{statistics.mean(gains):+.2f} ± {error:.2f}"))  # fmt: skip
    table = Table(("moment", "rate", "dense then", "straight", "trained on", "with an exchange", "difference"), (tuple(lines),))
    said = (f"**Plasticity.** LeNet-300-100 on MNIST: accuracy in percent of copies pruned to {SPARSITY:.0%} at a moment of "
            f"training, and trained on for {AFTER} steps at its rate; mean of {SEEDS} seeds, the difference ± one standard "
            "error.\n\n")  # fmt: skip
    return compared("granet") + "\n" + said + table.markdown()


def _mean(rows: list[dict[str, Any]], key: str) -> str:
    return f"{100 * statistics.mean(row[key] for row in rows):.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
