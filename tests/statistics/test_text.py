"""Windows of text: what is read, how it is cut, what cannot be."""

from __future__ import annotations

import json

import pytest
import torch

from secateurs.errors import BadInput, CorruptFile
from secateurs.statistics.text import Encoder, consecutive_windows, random_windows, read_texts

LETTERS = Encoder(lambda texts: [[ord(c) - 97 for c in text] for text in texts])
WRAPPED = Encoder(LETTERS.encode, 30, 31)


def test_texts_of_every_kind_of_file(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = ["one", "  ", "two\nlines", ""]
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": row, "de": "eins"}) for row in rows) + "\n\n")
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": [*rows[:3], None]}), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.txt") == ["one\n\ntwo\n"]
    assert read_texts(tmp_path / "a.jsonl") == ["one", "two\nlines"] == read_texts(tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.jsonl", "de") == ["eins"] * 4


def test_consecutive_windows_wrap_every_text_and_leave_out_the_rest():
    assert consecutive_windows(["abcde", "fg"], LETTERS, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert consecutive_windows(["abc", "de"], WRAPPED, 3).tolist() == [[30, 0, 1], [2, 31, 30], [3, 4, 31]]
    assert consecutive_windows(["abcdef"], LETTERS, 2, most=2).tolist() == [[0, 1], [2, 3]]
    assert consecutive_windows(["abc"], LETTERS, 3).tolist() == [[0, 1, 2]]


def test_random_windows_are_crops_that_follow_the_seed():
    texts = ["abcdefghij", "klmnopqrst"]
    windows = random_windows(texts, LETTERS, 5, 4, seed=3)
    assert windows.shape == (5, 4) and windows.dtype == torch.long
    streams = [[*range(20)], [*range(10, 20), *range(10)]]
    for row in windows.tolist():
        assert any(stream[i : i + 4] == row for stream in streams for i in range(17))
    assert torch.equal(windows, random_windows(texts, LETTERS, 5, 4, seed=3))
    assert not torch.equal(windows, random_windows(texts, LETTERS, 5, 4, seed=4))
    assert random_windows(["abc"], LETTERS, 2, 3).tolist() == [[0, 1, 2]] * 2  # one place to cut


def test_no_more_is_encoded_than_is_needed():
    seen = []

    def encode(texts):
        seen.extend(texts)
        return LETTERS.encode(texts)

    texts = ["abcd"] * 2000
    random_windows(texts, Encoder(encode), 2, 8)
    assert 16 <= len(seen) < 600
    seen.clear()
    consecutive_windows(texts, Encoder(encode), 8, most=3)
    assert len(seen) < 600


@pytest.mark.parametrize("cut", [lambda t, e, n: random_windows(t, e, 2, n), consecutive_windows])
def test_text_that_does_not_do(cut):
    with pytest.raises(BadInput, match="3 tokens, fewer than one window of length=4"):
        cut(["abc"], LETTERS, 4)
    with pytest.raises(BadInput, match="0 tokens"):
        cut([], LETTERS, 4)
    with pytest.raises(BadInput, match="gives the id 25, and the model knows 25 ids, 0 to 24: it is the tokenizer of another"):
        cut(["abz"], Encoder(LETTERS.encode, vocabulary=25), 2)
    assert len(cut(["abz"], Encoder(LETTERS.encode, vocabulary=26), 3))
    with pytest.raises(BadInput, match="length=1: give a whole number, at least 2"):
        cut(["abc"], LETTERS, 1)


def test_files_that_do_not_do(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(BadInput, match=r"empty\.txt' holds no text"):
        read_texts(tmp_path / "empty.txt")
    (tmp_path / "a.jsonl").write_text('{"txt": "a"}\n')
    with pytest.raises(BadInput, match="line 1, has no text under 'text'; did you mean 'txt'"):
        read_texts(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(CorruptFile, match="line 2, is not JSON"):
        read_texts(tmp_path / "b.jsonl")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CorruptFile, match="not a whole parquet file"):
        read_texts(tmp_path / "a.parquet")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorruptFile, match="not text in UTF-8"):
        read_texts(tmp_path / "latin.txt")
    with pytest.raises(BadInput, match=r"give a \.txt, \.jsonl or \.parquet file"):
        read_texts(tmp_path)


def test_a_column_that_is_not_there_or_holds_no_text(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"id": [1], "sentence": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="has no column 'text'; there is 'id', 'sentence'"):
        read_texts(tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"column 'id' of .* holds int, not text"):
        read_texts(tmp_path / "a.parquet", "id")


def test_a_name_without_a_file(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"'wikitxt' does not exist; give a \.txt"):
        read_texts("wikitxt")
