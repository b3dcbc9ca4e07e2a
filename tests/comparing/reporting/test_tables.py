import pytest

from secateurs.comparing.reporting.points import gather
from secateurs.comparing.reporting.tables import (
    layer_matrix,
    layers_table,
    pairs_table,
    quality_table,
    records,
    summary_table,
    times_table,
)
from tests.comparing.made_up import row, rows


def line(table, *start):
    """The one line that begins with ``start``, its section's label filled in, as a dictionary by heading."""
    found, before = [], ()
    for cells in table.lines:
        cells = tuple(c or b for c, b in zip(cells, before or cells, strict=True))
        before = (*cells[: table.left], *("" for _ in cells[table.left :]))
        if cells[: len(start)] == start:
            found.append(dict(zip(table.headings, cells, strict=True)))
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def tasks():
    return gather(rows()).tasks


def test_quality_with_its_error_its_differences_and_what_it_costs(tasks):
    assert line(quality_table(tasks[:1]), "90 %", "gmp") == {
        "removed": "90 %", "arm": "gmp", "top-1, %": "88.10 ± 0.06", "vs dense": "-7.00 ± 0.00",
        "vs small-dense": "+3.00 ± 0.00", "vs random": "+13.00 ± 0.00",
        "before training": "65.00 ± 0.00", "bytes": "1,120", "multiply-adds, %": "10.0",
        "cost, steps": "456", "seeds": "3",
    }  # fmt: skip


def test_the_dense_model_stands_first_and_has_nothing_to_be_compared_with(tasks):
    table = quality_table(tasks[:1])
    assert table.lines[0][:4] == ("–", "dense", "95.10 ± 0.06", "–")
    assert len(table.sections) == 3 and len(table.lines) == 11


def test_several_tasks_are_one_table_that_names_them(tasks):
    assert line(quality_table(tasks), "letters", "80 %", "gmp")["top-1, %"] == "93.10 ± 0.06"
    other = gather([*rows(tasks=("digits",)), row("words", metric="perplexity", direction="lower", percent=False)]).tasks
    assert quality_table(other).headings[3] == "quality (digits: top-1, %; words: perplexity)"


def test_a_seed_that_one_side_lacks_is_told():
    made = [r for r in rows() if (r["arm"], r["seed"]) != ("dense", 2)]
    cells = line(quality_table(gather(made).tasks[:1]), "90 %", "gmp")
    assert cells["vs dense"] == "-7.00 ± 0.00 (n = 2)" and cells["vs random"] == "+13.00 ± 0.00" and cells["seeds"] == "3"


def test_the_summary_is_the_table_with_fewer_columns(tasks):
    whole, brief = quality_table(tasks), summary_table(tasks)
    assert brief.headings == ("task", "removed", "arm", "top-1, %", "vs dense", "vs small-dense", "bytes", "seeds")
    places = [whole.headings.index(heading) for heading in brief.headings]
    assert brief.lines == [tuple(cells[i] for i in places) for cells in whole.lines]


def test_one_seed_has_no_error():
    assert line(quality_table(gather(rows(seeds=(0,))).tasks[:1]), "90 %", "gmp")["top-1, %"] == "88.00"


def test_times_are_not_among_the_quality(tasks):
    slower = [{**r, "latency": {**r["latency"], "median_s": 9.0}, "seconds": {"training": 99.0, "total": 99.0}} for r in rows()]
    after = gather(slower).tasks
    for table in (quality_table, pairs_table, layers_table):
        assert table(after).markdown() == table(tasks).markdown()
    assert line(times_table(tasks[:1]), "90 %", "gmp") == {
        "removed": "90 %", "arm": "gmp", "latency, ms": "2", "× dense": "0.80", "spread, %": "8", "training, s": "3.5",
        "whole run, s": "4.0", "peak memory, MB": "0.25", "seeds": "3",
    }  # fmt: skip
    assert line(times_table(after[:1]), "90 %", "gmp")["training, s"] == "99.0"


def test_latency_that_was_not_measured():
    made = [{**r, "latency": None} for r in rows()]
    cells = line(times_table(gather(made).tasks[:1]), "90 %", "gmp")
    assert cells["latency, ms"] == cells["× dense"] == cells["spread, %"] == "–"


def test_pairs_say_interval_wins_and_whether_they_differ():
    values = {"gmp": (0.90, 0.92, 0.91), "magnitude": (0.88, 0.90, 0.92)}
    made = [row(arm=arm, point="90 %", seed=s, value=v) for arm, of in values.items() for s, v in enumerate(of)]
    cells = line(pairs_table(gather(made).tasks), "90 %", "gmp", "magnitude")
    assert (cells["difference"], cells["better on"], cells["can be told apart"]) == ("+1.00 ± 1.00", "2 of 3", "no")
    assert cells["95 % interval"] == "-3.30 to +5.30"


def test_all_pairs_of_a_point(tasks):
    table = pairs_table(tasks[:1])
    assert len(table.lines) == 20 and {cells[-1] for cells in table.lines} == {"yes"}


def test_layers_by_eye(tasks):
    assert line(layers_table(tasks[:1]), "90 %", "gmp", "fc1.weight")["removed, %"] == "90.00"
    assert line(layers_table(tasks[:1]), "90 %", "gmp", "fc2.weight")["weights"] == "200"
    arms = {cells[1] for cells in layers_table(tasks[:1]).lines} - {""}
    assert arms == {"random", "gmp", "magnitude"}  # scratch-e has the counts of magnitude, dense models none
    assert layer_matrix(tasks[0], "90 %").headings == ("layer", "weights", "random", "gmp", "magnitude")
    assert layer_matrix(tasks[0], "90 %").lines[0] == ("fc1.weight", "600", "90.0", "90.0", "90.0")


def test_records_hold_the_numbers_of_the_table(tasks):
    found = next(r for r in records(tasks) if (r["task"], r["arm"], r["point"]) == ("digits", "gmp", "90 %"))
    assert found["values"] == [0.88, 0.881, 0.882] and found["seeds"] == [0, 1, 2]
    expected = {"mean": 0.881, "standard_error": 0.001 / 3**0.5, "vs_dense": -0.07, "vs_small_dense": 0.03, "vs_random": 0.13,
                "bytes": 1120, "multiply_adds_share": 0.1, "latency_ratio": 0.8, "cost_steps": 456}  # fmt: skip
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["vs_dense_seeds"] == 3
