import pytest

from secateurs.demo import summary

LATENCY = {"batch": 256, "repeats": 50}


def row(method, point, label, seed, accuracy, size, latency, validation=0.9):
    facts = {"method": method, "point": point, "label": label, "mark": label, "seed": seed, "parameters": 2500}
    measured = {"accuracy": accuracy, "validation": validation, "bytes": size, "nonzero": size // 4}
    return {**facts, **measured, "latency_s": latency, "latency_iqr_s": 0.1e-3}


def rows(sparse=(0.97, 0.98), sparse_latency=6.0e-3):
    return [
        *(row("dense", "0 %", "dense ×1.00", seed, 0.99, 10000, 6.0e-3) for seed in (0, 1)),
        *(row("gmp", "90 %", "sparse 90 %", seed, sparse[seed], 1500, sparse_latency) for seed in (0, 1)),
        *(row("dense", "90 %", "dense ×0.38", seed, 0.96, 1510, 2.0e-3) for seed in (0, 1)),
    ]


@pytest.mark.parametrize(
    ("sparse", "said"),
    [
        ((0.97, 0.98), "+1.5 ± 0.7 points against dense ×0.38 of 1,510 bytes; ahead with every seed."),
        ((0.95, 0.94), "-1.5 ± 0.7 points against dense ×0.38 of 1,510 bytes; behind with every seed."),
        ((0.95, 0.97), "+0.0 ± 1.4 points against dense ×0.38 of 1,510 bytes; ahead or not depending on the seed."),
        ((0.96, 0.96), "+0.0 ± 0.0 points against dense ×0.38 of 1,510 bytes; level with every seed."),
    ],
)
def test_the_contest_is_told_whichever_way_it_goes(sparse, said):
    assert summary.findings(rows(sparse))[0] == f"90 % removed, 1,500 bytes: {said}"


def test_zeros_that_save_no_time_are_said_to_save_none():
    assert (
        "1.00 times the full dense network's time, whose calls spread by 2% (quartiles): no gain"
        in summary.findings(rows())[-1]
    )
    assert (
        "1.01 times the full dense network's time, whose calls spread by 2% (quartiles): no gain"
        in summary.findings(rows(sparse_latency=6.05e-3))[-1]
    )
    assert (
        "0.99 times the full dense network's time, whose calls spread by 2% (quartiles): no gain"
        in summary.findings(rows(sparse_latency=5.95e-3))[-1]
    )  # within the spread
    assert (
        "0.50 times the full dense network's time, whose calls spread by 2% (quartiles): less for sparse 90 %"
        in summary.findings(rows(sparse_latency=3e-3))[-1]
    )


def test_one_seed_claims_nothing():
    assert summary.findings([r for r in rows() if r["seed"] == 0])[0].endswith("one seed says little.")


def test_the_best_is_chosen_without_the_test_images():
    good_on_test = row("gmp", "50 %", "sparse 50 %", 0, 0.999, 5000, 6e-3, validation=0.90)
    chosen = row("gmp", "75 %", "sparse 75 %", 1, 0.5, 3000, 6e-3, validation=0.95)
    larger = row("gmp", "50 %", "sparse 50 %", 1, 0.9, 5000, 6e-3, validation=0.95)
    dense = row("dense", "0 %", "dense ×1.00", 0, 1.0, 9000, 6e-3, validation=1.0)
    assert summary.best_sparse([good_on_test, larger, chosen, dense]) is chosen


def test_dense_stands_beside_sparse():
    table = summary.make_table(rows(), LATENCY)
    assert table.headings == ("removed", "model", "test accuracy, %", "vs dense", "non-zeros", "bytes", "ms/batch")
    assert [line[:2] for line in table.sections[1]] == [("90 %", "sparse 90 %"), ("", "dense ×0.38")]
    assert [line[-1] for line in table.lines] == ["6.00", "6.00", "2.00"]
    assert "2 seeds" in table.caption and "256 images" in table.caption


def test_the_reload_check_passes_only_on_equal_outputs_and_counts():
    best = {"label": "sparse 90 %", "seed": 1, "nonzero": 375}
    same = {"equal": True, "difference": 0.0, "nonzero": 375, "images": 540}
    assert summary.reload_sentence(same, best)[0]
    passed, said = summary.reload_sentence({**same, "equal": False, "difference": 0.25}, best)
    assert not passed and "NOT equal, largest difference 0.25" in said
    passed, said = summary.reload_sentence({**same, "nonzero": 376}, best)
    assert not passed and "376 non-zeros where 375 were saved" in said
    passed, said = summary.reload_sentence({"equal": False, "error": "CorruptFile: gone"}, best)
    assert not passed and "CorruptFile: gone" in said
