"""BLEU and word error rate: the libraries' own numbers, and words counted by hand."""

import pytest

from secateurs.errors import BadInput
from secateurs.measure import bleu, bleu_signature, word_error_rate

LINES = ["the cat sat on the mat .", "a dog barks at night ."]
OTHER = ["a cat sat on the mat .", "the dog barks at night ."]


def test_bleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    assert bleu(LINES, LINES) == pytest.approx(100)
    assert bleu(LINES, OTHER) == pytest.approx(sacrebleu.corpus_bleu(LINES, [OTHER]).score)
    assert 0 < bleu(LINES, OTHER) < 100
    assert bleu(LINES, [OTHER, LINES]) == pytest.approx(100)  # two reference sets
    assert "tok:13a" in bleu_signature()
    with pytest.raises(BadInput, match="2 hypotheses against"):
        bleu(LINES, LINES[:1])


def test_word_error_rate_counts_words_of_the_whole_corpus():
    """One substitution in three words, one deletion in one: 2 of 4, not the mean of 1/3 and 1."""
    pytest.importorskip("jiwer")
    assert word_error_rate(["a x c", ""], ["a b c", "d"]) == 2 / 4
    assert word_error_rate(LINES, LINES) == 0
    assert word_error_rate(["a b c d"], ["a"]) == 3  # three insertions into one word


def test_word_error_rate_is_that_of_jiwer():
    jiwer = pytest.importorskip("jiwer")
    assert word_error_rate(LINES, OTHER) == pytest.approx(jiwer.wer(OTHER, LINES))


def test_word_error_rate_without_words():
    with pytest.raises(BadInput, match=r"reference 1 has no words \(1 of 2"):
        word_error_rate(["a", "b"], ["a", " "])
    with pytest.raises(BadInput, match="0 hypotheses"):
        word_error_rate([], [])
    with pytest.raises(BadInput, match="2 hypotheses against 1"):
        word_error_rate(["a", "b"], ["a"])
