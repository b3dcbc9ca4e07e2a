"""The pages of the measurements beside others, from results of a few lines."""

import json

import pytest

from benchmarks.beside import page as beside
from benchmarks.solver import page as solver
from secateurs.errors import BadInput


def spread(value):
    return {"median": value, "least": value - 1, "most": value + 1}


def test_the_arms_beside_each_other(tmp_path):
    def arm(seconds, faster, perplexity):
        return {"zeros": 0.5, "geometric_mean": perplexity, "seconds": spread(seconds), "times_faster": spread(faster),
                "peak_bytes": spread(500e6)}  # fmt: skip

    part = {"method": "sparsegpt", "point": "0.5", "threads": 1, "repeats": 3, "batch": 8,
            "arms": {"llm-compressor": arm(20, 1, 23.456), "secateurs": arm(10, 2, 23.454)}}  # fmt: skip
    path = tmp_path / "beside.json"
    path.write_text(json.dumps({"sparsegpt 0.5": part, "wanda 2:4": {**part, "method": "wanda", "point": "2:4"}}))
    lines = beside.section(path).splitlines()
    assert "the libraries in turn 3 times, 8 windows" in " ".join(lines)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[2] == ["sparsegpt", "50 %", "llm-compressor", "0.5000", "23.46", "20.0 (19.0 to 21.0)", "", "500 MB"]
    assert rows[3][5:] == ["10.0 (9.0 to 11.0)", "2.00 (1.00 to 3.00)", "500 MB"]
    assert rows[5][:3] == ["wanda", "2:4", "secateurs"]


def test_the_steps_of_the_solver(tmp_path):
    steps = [key for _, theirs, ours, _ in solver.STEPS for key in (theirs, ours) if key]
    ratios = {row[3]: spread(3.0) for row in solver.STEPS}
    part = {"rows": 4, "columns": 8, "sparsity": 0.5, "threads": 1, "repeats": 3, "relative_difference": 3.7e-7,
            "seconds": {step: spread(2.0) for step in steps}, "ratios": ratios}  # fmt: skip
    path = tmp_path / "solver.json"
    path.write_text(json.dumps({"4x8 threads 1": part}))
    text = solver.section(path)
    assert "at most 4e-07 of their norm" in text and "| 4 x 8 | both, mask chosen |  |  | 3.00 (2.00 to 4.00) |" in text


@pytest.mark.parametrize("say", (beside.section, solver.section))
def test_without_results(say, tmp_path):
    with pytest.raises(BadInput, match="no results in"):
        say(tmp_path / "none.json")
