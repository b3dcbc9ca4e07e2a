import pytest

from secateurs.demo.results import Results
from secateurs.errors import CorruptFile


def test_rows_are_read_back_and_the_last_of_an_id_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    results = Results(path)
    for row in ({"id": "a", "x": 1}, {"id": "b", "x": 2}, {"id": "a", "x": 3}):
        results.add(row)
    again = Results(path)
    assert again["a"] == results["a"] == {"id": "a", "x": 3}
    assert "b" in again and "c" not in again
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", ['{"id": "b"', '{"id": "b", "x": 2}'])
def test_a_line_cut_short_is_forgotten_and_the_next_starts_afresh(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    path.write_text('{"id": "a", "x": 1}\n' + cut)
    results = Results(path)
    assert "a" in results and "b" not in results
    results.add({"id": "c", "x": 3})
    assert path.read_text() == '{"id": "a", "x": 1}\n{"id": "c", "x": 3}\n'


@pytest.mark.parametrize("line", ["not json", "{}", "3"])
def test_a_foreign_line_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f'{{"id": "a"}}\n{line}\n')
    with pytest.raises(CorruptFile, match="line 2 of"):
        Results(path)


def test_a_result_that_is_no_number_is_not_written(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        results.add({"id": "a", "accuracy": float("nan")})
    assert "a" not in results and "a" not in Results(tmp_path / "results.jsonl")
