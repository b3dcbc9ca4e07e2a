import dataclasses

import pytest
import torch

from secateurs.demo.data import batches, digits
from secateurs.demo.network import FULL, build, channels
from secateurs.demo.settings import Settings, dense_jobs, full_and_sparse_jobs, recipe
from secateurs.errors import BadInput


def test_parts_are_disjoint_whole_and_stratified():
    data = digits()
    parts = (data.train, data.validation, data.test)
    assert [len(part.classes) for part in parts] == [897, 360, 540]
    assert all(part.images.shape[1:] == (1, 8, 8) and part.images.min() >= 0 and part.images.max() <= 1 for part in parts)
    counts = [torch.bincount(part.classes, minlength=10) / len(part.classes) for part in parts]
    assert all(torch.allclose(c, counts[0], atol=0.01) for c in counts)
    assert digits() is data


def test_batches_depend_on_the_seed_alone_and_are_full():
    def classes(seed):
        return [y.tolist() for _, y in batches(digits().train, 64, 20, seed)]

    assert classes(1) == classes(1) != classes(2)
    assert [len(y) for y in classes(1)] == [64] * 20


def test_an_epoch_sees_no_image_twice():
    epoch = torch.cat([x for x, _ in batches(digits().train, 64, 14, 0)])
    assert len(epoch) == 896 and len(epoch.flatten(1).unique(dim=0)) == len(
        digits().train.images[:896].flatten(1).unique(dim=0)
    )


@pytest.mark.parametrize(("width", "expected"), [(64, (16, 32, 64)), (32, (8, 16, 32)), (5, (1, 3, 5)), (1, (1, 1, 1))])
def test_widths(width, expected):
    assert channels(width) == expected
    assert build(width)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_every_width_is_larger_than_the_one_below():
    counts = [sum(p.numel() for p in build(width).parameters()) for width in range(1, FULL + 1)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("width", [0, 65])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(BadInput, match=f"width={width}"):
        channels(width)


def test_every_seed_has_every_run_and_every_run_its_own_id_and_name():
    settings = Settings(seeds=2)
    jobs = full_and_sparse_jobs(settings) + dense_jobs(settings, [46, 35, 24, 19])
    assert len(jobs) == 18 == len({job.id for job in jobs}) == len({job.name for job in jobs})
    assert [job.label for job in jobs[:5]] == ["dense ×1.00", "sparse 50 %", "sparse 75 %", "sparse 90 %", "sparse 95 %"]
    assert {job.steps for job in jobs} == {1200}
    assert [(job.point, job.mark) for job in jobs[-2:]] == [("90 %", "×0.38"), ("95 %", "×0.30")]


def test_any_setting_that_matters_changes_the_id():
    job = full_and_sparse_jobs(Settings())[1]
    others = [
        dataclasses.replace(job, **change)
        for change in ({"steps": 9}, {"rate": 0.2}, {"seed": 5}, {"every": 7}, {"decay": 0.0})
    ]
    assert len({job.id, *(other.id for other in others)}) == 6


def test_the_recipe_says_what_the_demo_promises():
    said = recipe(full_and_sparse_jobs(Settings())[3]).to_dict()
    assert (said["method"], said["sparsity"], said["begin"], said["end"], said["exempt"]) == ("gmp", 0.9, 0.1, 0.75, ["gmp"])


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True])
def test_no_repetition_is_no_experiment(seeds):
    with pytest.raises(BadInput, match=f"seeds={seeds}"):
        Settings(seeds=seeds)
