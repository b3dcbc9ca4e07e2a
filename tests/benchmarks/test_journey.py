"""The design of the sparse pre-training experiment: equal compute, and a dense rival of the average size."""

import pytest
import torch

pytest.importorskip("pyarrow")
from benchmarks.methods.journey import EVERY, STEPS, WIDTH, trials
from benchmarks.nets.charlm import CharLM
from secateurs.planning import same_compute


def linear_weights(width):
    return sum(p.numel() for name, p in CharLM(width).named_parameters() if name.startswith("blocks.") and p.ndim == 2)


def test_no_run_is_done_twice():
    names = [trial.name for trial in trials()]
    assert len(set(names)) == len(names) == 35


def test_all_schedules_cost_the_same():
    for trial in trials():
        if trial.label not in ("law", "dense, average size"):
            schedule, steps = same_compute(trial.sparsity, trial.steps, trial.begin, trial.end, EVERY)
            assert trial.width == WIDTH and schedule.average_density(steps) * steps == pytest.approx(STEPS, abs=1)


def test_the_dense_rival_has_the_average_size_and_as_many_characters():
    schedule, steps = same_compute(0.5, STEPS, every=EVERY)
    (rival,) = {(t.width, t.steps) for t in trials() if t.label == "dense, average size"}
    assert rival[1] == steps
    assert linear_weights(rival[0]) == pytest.approx(schedule.average_density(steps) * linear_weights(WIDTH), rel=0.01)
    assert linear_weights(WIDTH) == 24 * WIDTH**2


def test_a_character_does_not_see_the_next_ones():
    torch.manual_seed(0)
    model, ids = CharLM(16, characters=8, length=6).eval(), torch.randint(8, (1, 6))
    changed = ids.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 8
    assert torch.allclose(model(ids)[0, :4], model(changed)[0, :4], atol=1e-6)
    assert not torch.allclose(model(ids)[0, 4], model(changed)[0, 4], atol=1e-3)
