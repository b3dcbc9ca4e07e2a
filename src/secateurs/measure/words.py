"""What generated text is worth, against reference text: BLEU and word error rate. Convention and units stand with each."""

from __future__ import annotations

from collections.abc import Sequence

from secateurs.errors import BadInput
from secateurs.extras import require

__all__ = ["bleu", "bleu_signature", "word_error_rate"]


def bleu(hypotheses: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]) -> float:
    """Corpus BLEU in [0, 100] by sacreBLEU with its default settings (Post 2018); quote :func:`bleu_signature` beside it.

    Args:
        hypotheses: detokenised output sentences.
        references: one reference sentence per hypothesis, or a list of such lists for several references.

    Raises:
        BadInput: no sentences, or lists of different lengths.
        MissingExtra: sacrebleu is not installed.
    """
    sets = [list(references)] if not references or isinstance(references[0], str) else [list(r) for r in references]
    if not hypotheses or any(len(one) != len(hypotheses) for one in sets):
        raise BadInput(f"BLEU of {len(hypotheses)} hypotheses against {[len(one) for one in sets]} references: give one each")
    return float(require("sacrebleu", "text").corpus_bleu(list(hypotheses), sets).score)


def bleu_signature() -> str:
    """sacreBLEU's description of the metric behind :func:`bleu`: case, tokenizer, smoothing and version."""
    metric = require("sacrebleu", "text").BLEU()
    metric.corpus_score(["a"], [["a"]])  # the signature is complete only after a first score
    return str(metric.get_signature())


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Word error rate of a whole corpus by jiwer: substituted, deleted and inserted words over the words of the references.

    0 is perfect; many insertions bring it above 1. Words are what white space parts; case and punctuation count, so normalise
    both sides alike before. A hypothesis may be empty: all its words are then deleted.

    Args:
        hypotheses: output sentences.
        references: one for each of them.

    Raises:
        BadInput: no sentences, lists of different lengths, or a reference without a word.
        MissingExtra: jiwer is not installed.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise BadInput(f"word error rate of {len(hypotheses)} hypotheses against {len(references)} references: give one each")
    if empty := [i for i, text in enumerate(references) if not text.split()]:
        raise BadInput(f"word error rate: reference {empty[0]} has no words ({len(empty)} of {len(references)} have none), so "
                       "nothing can be divided by their number; leave those sentences out")  # fmt: skip
    return float(require("jiwer", "text").wer(list(references), list(hypotheses)))
