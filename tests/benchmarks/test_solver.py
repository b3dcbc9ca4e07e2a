"""The solver's benchmark measures two programs that do the same."""

import json

from benchmarks.solver import run


def test_both_solvers_agree_and_the_results_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    out = tmp_path / "solver.json"
    assert run.main(["--out", str(out), "--repeats", "2", "--shapes", "12x152", "3x20"]) == 0
    found = json.loads(out.read_text())
    assert list(found) == ["12x152 threads 1", "3x20 threads 1"]
    for measured in found.values():
        assert measured["relative_difference"] < 1e-4
        assert set(measured["ratios"]) >= {"factor", "whole, mask given", "whole, mask chosen"}
        for spread in (*measured["seconds"].values(), *measured["ratios"].values()):
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]
