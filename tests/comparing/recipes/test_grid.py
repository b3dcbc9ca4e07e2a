"""From a comparison to its runs: who is there, what waits for what, what a run's name depends on."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.comparing.recipes.grid import runs, steps, with_baselines
from secateurs.comparing.spec import MASKED, SCHEMA, Arm, Comparison, Dense, Optimizer, Point, Task
from secateurs.errors import BadInput

MAGNITUDE = Arm("magnitude", settings={"method": "magnitude"})
RANDOM = Arm("drawn", settings={"method": "random"})
HALF = Arm("half", settings={"method": "magnitude", "structure": "2:4"})
TASK = Task("t", "m:build", "m:load", 100)
DENSE = dataclasses.replace(TASK, dense=Dense(300), width=8, widths=(2, 4, 8))


POINTS = (Point(0.8), Point(0.9))


def compare(*arms, tasks=(TASK,), points=POINTS, seeds=(0, 1)):
    return Comparison("c", tasks, arms, points, seeds)


def cells(found, protocol=None):
    """``(arm, point, seed)`` of runs, in their order."""
    return [(r.arm.name, r.point and r.point.label, r.seed) for r in found if protocol in (None, r.arm.protocol)]


def test_a_grid_by_hand():
    """Two seeds, two points: a start and a dense run a seed; pruning, random and the masks of pruning at every point."""
    found = runs(compare(MAGNITUDE, Arm("scratch", "scratch-b", of="magnitude"), tasks=(DENSE,)))
    grid = [(label, seed) for label in ("80 %", "90 %") for seed in (0, 1)]
    assert cells(found) == [
        ("start", None, 0), ("start", None, 1),  # 300 + 100 + 800 steps long is the way from here to the end
        *(("magnitude", *at) for at in grid), *(("scratch", *at) for at in grid), *(("small-dense", *at) for at in grid),
        ("dense", None, 0), ("dense", None, 1), *(("random", *at) for at in grid),
    ]  # fmt: skip
    assert sorted({(run.arm.protocol, steps(run)) for run in found}) == [
        ("dense", 100), ("prune", 100), ("scratch-b", 800), ("small-dense", 400), ("start", 300),
    ]  # fmt: skip
    names = {(r.arm.name, r.point and r.point.label, r.seed): r.name for r in found}
    for run in found:
        before = {"start": (), "small-dense": (), "scratch": ("magnitude", run.point and run.point.label, run.seed)}
        needed = before.get(run.arm.name, ("start", None, run.seed))
        assert run.needs == ((names[needed],) if needed else ())


def test_without_a_dense_stage_everything_begins_with_random_weights():
    found = runs(compare(MAGNITUDE))
    assert sorted({run.arm.name for run in found}) == ["dense", "magnitude", "random"]
    assert all(run.needs == () for run in found)
    assert [steps(run) for run in found] == [100] * len(found)


def test_a_stored_model_is_one_start_for_all_seeds():
    task = dataclasses.replace(TASK, dense=Dense(300, checkpoint="x"))
    found = runs(compare(MAGNITUDE, tasks=(task,), seeds=(4, 2, 9)))
    (start,) = [run for run in found if run.arm.protocol == "start"]
    assert found[0] is start and start.seed == 4 and steps(start) == 0
    assert {run.needs for run in found[1:]} == {(start.name,)}
    more = runs(compare(MAGNITUDE, tasks=(task,), seeds=(4, 2, 9, 1)))
    assert {run.name for run in found} < {run.name for run in more}


@pytest.mark.parametrize(
    ("arms", "task", "added"),
    [
        ((MAGNITUDE,), TASK, ["dense", "random"]),
        ((MAGNITUDE,), DENSE, ["dense", "random", "small-dense"]),
        ((MAGNITUDE, RANDOM), DENSE, ["dense", "small-dense"]),
        ((Arm("d", "dense"), RANDOM, Arm("s", "small-dense")), DENSE, []),
        ((Arm("r", "iterative", settings={"method": "random"}),), TASK, ["dense", "random"]),
        ((Arm("r", settings={"method": "random", "structure": "2:4"}),), TASK, ["dense", "random"]),
        ((Arm("r", settings={"method": "magnitude", "criterion": "random"}),), TASK, ["dense", "random"]),
    ],
)
def test_baselines_that_are_missing_are_added(arms, task, added):
    everyone = with_baselines(compare(*arms), task)
    assert everyone[: len(arms)] == arms
    assert [arm.name for arm in everyone[len(arms) :]] == added
    for arm in everyone[len(arms) :]:
        assert arm.name != "random" or arm.settings == {"method": "random", "allocation": "uniform"}


def test_a_method_that_has_a_missing_baselines_name_is_refused():
    with pytest.raises(BadInput, match="methods: 'random' is the name of a baseline"):
        runs(compare(dataclasses.replace(MAGNITUDE, name="random")))


def test_a_fixed_structure_runs_once_at_its_own_share_and_the_baselines_join_it():
    found = runs(compare(MAGNITUDE, HALF, Arm("scratch", "scratch-e", of="half"), tasks=(DENSE,), seeds=(3,)))
    labels = {name: [label for arm, label, _ in cells(found) if arm == name] for name in {run.arm.name for run in found}}
    assert labels["half"] == labels["scratch"] == ["50 %"]
    assert labels["magnitude"] == ["80 %", "90 %"]
    assert labels["random"] == labels["small-dense"] == ["80 %", "90 %", "50 %"]
    (half,) = [run for run in found if run.arm is HALF]
    assert half.point == Point(sparsity=0.5)
    alone = runs(compare(HALF, points=(), seeds=(3,)))
    assert cells(alone) == [("half", "50 %", 3), ("dense", None, 3), ("random", "50 %", 3)]
    joined = runs(compare(MAGNITUDE, HALF, points=(Point(0.5),), seeds=(3,)))
    assert {label for _, label, _ in cells(joined, "prune")} == {"50 %"} and len(joined) == 4


def test_a_task_may_have_its_own_points_and_seeds():
    own = dataclasses.replace(TASK, name="own", sparsities=(0.5,), seeds=(7,))
    found = runs(compare(MAGNITUDE, tasks=(TASK, own), points=(Point(compression=4),), seeds=(0,)))
    assert [(r.task.name, r.point.label, r.seed) for r in found if r.arm is MAGNITUDE] == [("t", "4x", 0), ("own", "50 %", 7)]


def test_what_cannot_work_is_said():
    with pytest.raises(BadInput, match="'small-dense' chooses among the task's widths"):
        runs(compare(Arm("s", "small-dense")))


# -- what holds for every comparison --------------------------------------------------------------------------------------

pruning = st.sampled_from([
    {"method": "magnitude"}, {"method": "gmp", "schedule": "linear"}, {"method": "taylor"}, {"method": "random"},
    {"method": "magnitude", "structure": "1:4"}, {"method": "magnitude", "structure": "2:4"},
])  # fmt: skip
tasks = st.builds(
    Task, name=st.just("t"), model=st.just("m:build"), data=st.just("m:load"), steps=st.integers(5, 50), width=st.just(8),
    widths=st.just((4, 8)), dense=st.none() | st.builds(Dense, st.integers(1, 99), st.none() | st.just("x")),
    seeds=st.none() | st.just((5, 6)), sparsities=st.none() | st.just((0.25, 0.5)),
)  # fmt: skip


@st.composite
def comparisons(draw):
    pruned = [Arm(f"p{i}", settings=said) for i, said in enumerate(draw(st.lists(pruning, min_size=1, max_size=3)))]
    pruned += [Arm("i", "iterative", settings={"method": "magnitude"}, rounds=3)] * draw(st.booleans())
    masked = [
        Arm(f"m{i}", protocol, of=draw(st.sampled_from(pruned)).name, cap=1.5)
        for i, protocol in enumerate(draw(st.lists(st.sampled_from([p for p in MASKED if p != "rewound"]), max_size=3)))
    ]
    arms = draw(st.permutations([*pruned, *masked, *[Arm("small", "small-dense")] * draw(st.booleans())]))
    many = [dataclasses.replace(task, name=f"t{i}") for i, task in enumerate(draw(st.lists(tasks, min_size=1, max_size=2)))]
    points = draw(st.sampled_from([(Point(0.5), Point(0.75)), (Point(compression=2),)]))
    return Comparison("c", tuple(many), tuple(arms), points, (0, 1, 2)[: draw(st.integers(1, 3))], draw(st.integers(1, 2)))


@given(comparisons())
@settings(max_examples=30, deadline=None)
def test_every_run_comes_after_what_it_needs_and_has_its_own_name(comparison):
    found = runs(comparison)
    seen = {}
    for run in found:
        assert set(run.needs) <= set(seen), run.name
        for need in (seen[name] for name in run.needs):
            assert need.task is run.task and (need.seed == run.seed or run.task.dense.checkpoint)
            assert need.arm.protocol == "start" or (need.arm.name, need.point) == (run.arm.of, run.point)
        assert (len(run.needs) == 1) == (run.arm.protocol in MASKED or (
            run.task.dense is not None and run.arm.protocol in ("dense", "prune", "iterative")))  # fmt: skip
        seen[run.name] = run
    assert len(seen) == len(found)
    protocols = {(run.task.name, run.arm.protocol) for run in found}
    methods = {(run.task.name, run.arm.settings.get("method")) for run in found}
    for task in comparison.tasks:
        assert {(task.name, "dense"), (task.name, "small-dense")} <= protocols and (task.name, "random") in methods


@given(comparisons(), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_names_do_not_know_the_comparison_the_order_of_arms_or_how_many_seeds_there_are(comparison, random):
    arms = list(comparison.arms)
    random.shuffle(arms)
    other = dataclasses.replace(comparison, name="another", arms=tuple(arms), seeds=(*comparison.seeds, 17))
    names, others = ({run.name for run in runs(which)} for which in (comparison, other))
    assert names <= others
    assert all(run.seed == 17 for run in runs(other) if run.name not in names)


@given(comparisons())
@settings(max_examples=10, deadline=None)
def test_the_same_comparison_has_the_same_names_in_the_same_order(comparison):
    again = dataclasses.replace(comparison, tasks=tuple(dataclasses.replace(task) for task in comparison.tasks))
    assert [run.name for run in runs(comparison)] == [run.name for run in runs(again)]


OTHER = {
    "model": "m:other", "data": "m:other", "steps": 101, "model_options": {"a": 1}, "data_options": {"a": 1}, "width": 9,
    "widths": (2, 8), "dense": Dense(301), "loss": "m:loss", "metric": "loss", "direction": "higher", "train": "m:train",
    "batch": 65, "transform": "m:t", "optimizer": Optimizer(lr=0.2), "autocast": True, "evaluate_every": 5,
    "evaluate_on": "validation", "calibration": 9, "selection": {"exclude": "x"}, "latency_batch": 2, "version": 2,
}  # fmt: skip


def names_of(comparison):
    return {run.name for run in runs(comparison)}


def test_every_field_of_a_task_that_determines_a_run_is_in_its_name():
    assert set(OTHER) == {f.name for f in dataclasses.fields(Task)} - {"name", "seeds", "sparsities"}
    before = names_of(compare(MAGNITUDE, tasks=(DENSE,)))
    for key, value in OTHER.items():
        assert getattr(DENSE, key) != value
        changed = compare(MAGNITUDE, tasks=(dataclasses.replace(DENSE, **{key: value}),))
        assert not before & names_of(changed), key


@pytest.mark.parametrize(
    "change",
    [{"points": (Point(0.81),)}, {"seeds": (2,)}, {"points": (Point(compression=2),)}, {"threads": 2}],
)
def test_point_seed_and_threads_are_in_the_name(change):
    found = [run.name for run in runs(compare(MAGNITUDE)) if run.point]
    assert not set(found) & {run.name for run in runs(dataclasses.replace(compare(MAGNITUDE), **change)) if run.point}


def test_an_arms_choices_are_in_its_name_and_in_those_of_its_masks():
    """Masks of a method that is set otherwise are others, though the arm that takes them says the same."""
    taking = Arm("s", "scratch-e", of="magnitude")
    other = dataclasses.replace(MAGNITUDE, settings={"method": "magnitude", "allocation": "global"})
    before, after = (runs(compare(arm, taking)) for arm in (MAGNITUDE, other))
    for name in ("magnitude", "s"):
        assert not {r.name for r in before if r.arm.name == name} & {r.name for r in after if r.arm.name == name}
    assert {r.name for r in before if r.arm.name == "random"} == {r.name for r in after if r.arm.name == "random"}


def test_names_and_what_determines_them_are_plain():
    task = dataclasses.replace(TASK, name="my task/ü")
    run = runs(compare(dataclasses.replace(MAGNITUDE, name="a b"), tasks=(task,), points=(Point(0.925),)))[0]
    assert run.name.startswith("my-task-ü-a-b-92.5-seed0-") and "/" not in run.name
    assert run.determined_by()["schema"] == SCHEMA
