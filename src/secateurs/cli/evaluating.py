"""``secateurs evaluate``: perplexity of a model on a text, with the convention it was measured by."""

from __future__ import annotations

from secateurs.cli.blockwise import memory_text, open_in_files, perplexity_in_files
from secateurs.cli.opening import Source
from secateurs.cli.showing import dump, facts, stages
from secateurs.cli.text import CONVENTION, Perplexity, Text, finite, is_causal, usual_length
from secateurs.errors import BadInput
from secateurs.measure.process import MemoryUse

__all__ = ["evaluate_model"]


def evaluate_model(
    source: Source, text: str, length: int | None, column: str, windows: int | None, as_json: bool, memory: str | None = None
) -> bool:
    """Print the perplexity; whether the memory budget was kept, if there is one.

    Raises:
        BadInput: the model is no causal language model, the text does not do, or the budget cannot be kept.
    """
    use: MemoryUse | None = None
    with stages(3) as at:
        at.begin("opening")
        opened = source.open() if memory is None else open_in_files(source)
        if not is_causal(opened.model):
            raise BadInput(f"{str(source.path)!r} is a {type(opened.model).__name__}: perplexity is that of a causal language "
                           "model")  # fmt: skip
        at.begin("text")
        cut = Text(text, length or usual_length(opened.model), column)
        measured = Perplexity(cut.windows(opened, windows, source.trust_remote_code), text)
        at.begin("measuring")
        if memory is None:
            value = measured.measure(opened.model)
        else:
            value, use = perplexity_in_files(opened.path, measured, memory, at)
    found = measured.facts()
    if as_json:
        held = {} if use is None else {"memory": {"budget_bytes": use.budget, "peak_bytes": use.peak, "kept": use.kept}}
        dump({"model": str(source.path), "perplexity": finite(value), **found, **held})
    else:
        facts({"perplexity": f"{value:.4f}", "text": f"{text}, {found['windows']} windows of {found['length']} tokens",
               "convention": CONVENTION, **({} if use is None else {"memory": memory_text(use)})})  # fmt: skip
    return use is None or use.kept is not False
