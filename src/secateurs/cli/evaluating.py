"""``secateurs evaluate``: perplexity of a model on a text, with the convention it was measured by."""

from __future__ import annotations

from secateurs.cli.opening import Source
from secateurs.cli.showing import dump, facts, stages
from secateurs.cli.text import CONVENTION, Perplexity, Text, finite, is_causal, usual_length
from secateurs.errors import BadInput

__all__ = ["evaluate_model"]


def evaluate_model(
    source: Source, text: str, length: int | None, column: str, windows: int | None, as_json: bool
) -> None:
    """Print the perplexity.

    Raises:
        BadInput: the model is no causal language model, or the text does not do.
    """
    with stages(3) as at:
        at.begin("opening")
        opened = source.open()
        if not is_causal(opened.model):
            raise BadInput(f"{str(source.path)!r} is a {type(opened.model).__name__}: perplexity is that of a causal language "
                           "model")  # fmt: skip
        at.begin("text")
        cut = Text(text, length or usual_length(opened.model), column)
        measured = Perplexity(cut.windows(opened, windows, source.trust_remote_code), text)
        at.begin("measuring")
        value = measured.measure(opened.model)
    found = measured.facts()
    if as_json:
        dump({"model": str(source.path), "perplexity": finite(value), **found})
    else:
        facts({"perplexity": f"{value:.4f}", "text": f"{text}, {found['windows']} windows of {found['length']} tokens",
               "convention": CONVENTION})  # fmt: skip
