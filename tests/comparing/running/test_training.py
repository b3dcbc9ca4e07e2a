"""What a training function is given: resumable to the same bits, hard to use wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.comparing.running import training as module
from secateurs.comparing.running.data import wrap
from secateurs.comparing.running.loop import supervised
from secateurs.comparing.running.optimizers import make_optimizer, rate_at
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import Optimizer
from secateurs.errors import BadInput, CorruptFile, NotFinite
from secateurs.train import Held
from tests.comparing.toys import build, data, jitter


class Killed(Exception):
    pass


def killer(at: int) -> Callable[[str, int, int], None]:
    def tell(name: str, step: int, steps: int) -> None:
        if step == at:
            raise Killed

    return tell


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(module, "SAVE_SHARE", float("inf"))


def session(kind: str, model: nn.Module) -> Any:
    if kind == "gmp":
        return sc.Pruner(model, "gmp", sparsity=0.5, begin=1, end=7, every=2, total_steps=10)
    return Held(model, sc.prune(model, "magnitude", sparsity=0.5, inplace=True).plan) if kind == "held" else None


def made(optimizer: str = "sgd", kind: str = "", **changes: Any) -> Training:
    torch.manual_seed(3)
    model = build()
    settings = Optimizer(optimizer, 0.05, weight_decay=0.01, rate="cosine", warmup=0.2, clip=1.0)
    said = {"steps": 10, "seed": 1, "batch": 16, "name": "r", "session": session(kind, model), **changes}
    return Training(model, wrap(data(), "t"), settings=settings, **said)


def train(training: Training) -> Training:
    supervised(training, transform=jitter)
    training.finish()
    return training


@pytest.mark.parametrize("kind", ["", "held", "gmp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_killed_anywhere_it_ends_with_the_same_bits(optimizer: str, kind: str, tmp_path: Path, saving: None) -> None:
    whole = train(made(optimizer, kind))
    for at in (1, 4, 9):
        with pytest.raises(Killed):
            train(made(optimizer, kind, checkpoint=tmp_path / "s.pt", tell=killer(at)))
        torch.rand(5)  # the state of the generators is nobody's business
    resumed = made(optimizer, kind, checkpoint=tmp_path / "s.pt")
    train(resumed)
    assert resumed.history == whole.history and [row["step"] for row in whole.history] == list(range(1, 11))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    if kind:
        assert resumed.session.average_density == whole.session.average_density < 1  # type: ignore[union-attr]


def test_a_stage_that_goes_on_has_the_batches_that_follow() -> None:
    seen: list[int] = []

    def watched(batch: Any) -> Any:
        seen.append(int(batch[0].sum() * 1e4))
        return batch

    supervised(made(steps=6), transform=watched)
    whole, seen = seen, []
    supervised(made(steps=2), transform=watched)
    supervised(made(steps=4, first=2), transform=watched)
    assert seen == whole


def test_the_history_has_means_of_the_losses_and_the_metric() -> None:
    losses: list[float] = []
    every = train(made(steps=6))
    coarse = made(steps=6, evaluate_every=4, evaluate=lambda model: losses.append(0.0) or len(losses))
    train(coarse)
    each = [row["loss"] for row in every.history]
    assert [(row["step"], row["value"]) for row in coarse.history] == [(4, 1), (6, 2)]
    assert [row["loss"] for row in coarse.history] == pytest.approx([sum(each[:4]) / 4, sum(each[4:]) / 2])


def test_rates() -> None:
    drops = Optimizer(lr=1.0, rate="drops")
    assert [rate_at(1.0, drops, step, 8) for step in (0, 3, 4, 5, 6, 7)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [rate_at(1.0, drops, 2 * step, 16) for step in range(8)] == [rate_at(1.0, drops, step, 8) for step in range(8)]
    cosine = Optimizer(rate="cosine", warmup=0.2)
    assert [rate_at(2.0, cosine, step, 10) for step in (0, 1, 2, 6)] == pytest.approx([1.0, 2.0, 2.0, 1.0])
    assert {rate_at(0.3, Optimizer(), step, 10) for step in range(10)} == {0.3}
    with pytest.raises(BadInput, match="rate 'stairs' is unknown"):
        rate_at(1.0, Optimizer(rate="stairs"), 3, 10)
    with pytest.raises(BadInput, match="optimizer 'lion' is unknown"):
        make_optimizer(build(), Optimizer("lion"))


def test_groups_keep_the_proportion_of_their_rates() -> None:
    training = made(steps=4)
    parts = list(training.model.parameters())
    optimizer = torch.optim.SGD([{"params": parts[:1], "lr": 0.4}, {"params": parts[1:], "lr": 0.1}])
    training.start(optimizer)
    for step in training.remaining():
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(4 * second)
        optimizer.step()
        training.done(step, 1.0)
    training.finish()


def returns_early(training: Training) -> None:
    optimizer = training.make_optimizer()
    training.start(optimizer)
    for step in training.remaining():
        optimizer.step()
        training.done(step, 0.5)
        if step == 3:
            return


def never_starts(training: Training) -> None:
    next(training.remaining())


def forgets_done(training: Training) -> None:
    training.start(training.make_optimizer())
    for _ in training.remaining():
        pass


def steps_twice(training: Training) -> None:
    optimizer = training.make_optimizer()
    training.start(optimizer)
    for step in training.remaining():
        optimizer.step()
        optimizer.step()
        training.done(step, 0.5)


def steps_another(training: Training) -> None:
    training.start(training.make_optimizer())
    for step in training.remaining():
        training.make_optimizer().step()
        training.done(step, 0.5)


def counts_itself(training: Training) -> None:
    training.start(training.make_optimizer())
    for step in training.remaining():
        training.done(step + 1, 0.5)


def starts_twice(training: Training) -> None:
    training.start(training.make_optimizer())
    training.start(training.make_optimizer())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (returns_early, "returned after 4 of 10 steps"),
        (never_starts, r"call start\(optimizer\) before remaining"),
        (forgets_done, r"call done\(\) once for every step .* at step 0 it was not"),
        (steps_twice, r"optimizer.step\(\) was called 2 times in step 0"),
        (steps_another, r"the optimizer given to start\(\) never took a step"),
        (counts_itself, r"done\(1\) where step 0 was due"),
        (starts_twice, "called twice"),
    ],
)
def test_what_a_training_function_cannot_get_wrong(wrong: Callable[[Training], None], says: str) -> None:
    training = made()
    with pytest.raises(BadInput, match=f"run 'r': .*{says}"):
        wrong(training)
        training.finish()


def test_a_loss_that_is_no_number_names_the_step() -> None:
    training = made(seed=2)
    with pytest.raises(NotFinite, match="run 'r': the loss is nan at step 0"):
        supervised(training, loss=lambda model, batch: model(batch[0]).sum() * float("nan"))


def test_the_built_in_loop_wants_a_split_of_at_least_a_batch() -> None:
    training = made(batch=121)
    with pytest.raises(BadInput, match="has 120 examples, which do not fill one batch of 121"):
        supervised(training)
    training = made()
    training.data = {"train": {"x": 3}}
    with pytest.raises(BadInput, match=r"data\['train'\] is a dict: give the task its own train"):
        supervised(training)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CorruptFile, match=r"s\.pt' cannot be read .*; delete it"):
        train(made(checkpoint=tmp_path / "s.pt"))


def test_bfloat16_is_used_where_it_is_asked_for() -> None:
    kinds: set[torch.dtype] = set()

    def loss(model: nn.Module, batch: Any) -> Any:
        out = model(batch[0])
        kinds.add(out.dtype)
        return out.float().square().mean()

    supervised(made(autocast=True), loss=loss)
    assert kinds == {torch.bfloat16}
