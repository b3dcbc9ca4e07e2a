"""Perplexity on the command line for a model whose weights stay in their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from secateurs.cli.opening import Opened, Source
from secateurs.cli.showing import Stages, bytes_text
from secateurs.cli.text import Perplexity
from secateurs.errors import BadInput
from secateurs.measure.process import MemoryUse
from secateurs.train import folder_perplexity
from secateurs.train.walk import open_hollow

__all__ = ["memory_text", "note_of", "open_in_files", "perplexity_in_files"]


def open_in_files(source: Source) -> Opened:
    """The model without its weights, for what its configuration and its folder tell.

    Raises:
        BadInput: not a Hugging Face folder of a class that transformers has.
    """
    path = source.path.expanduser()
    if source.factory is not None or source.trust_remote_code:
        raise BadInput("--memory is for models of classes that transformers has: leave out --factory and --trust-remote-code")
    if not (path / "config.json").is_file():
        raise BadInput(f"--memory needs a Hugging Face folder, and {str(source.path)!r} has no config.json")
    return Opened(open_hollow(path), path, "huggingface")


def perplexity_in_files(
    folder: Path, measured: Perplexity, memory: str, at: Stages, blocks: Sequence[str] = ()
) -> tuple[float, MemoryUse]:
    """The perplexity of the model in ``folder``, and the memory it took."""
    found = folder_perplexity(folder, measured.batches, memory=memory, blocks=blocks, progress=note_of(at, "perplexity"))
    return found.value, found.memory


def note_of(at: Stages, what: str) -> Callable[[int, int, str], None]:
    """Progress of a pass through the blocks, beside the stage."""

    def tell(number: int, total: int, name: str) -> None:
        at.note(f"{what}, block {number}/{total}")

    return tell


def memory_text(use: MemoryUse) -> str:
    """What was used of a budget."""
    if use.peak is None:
        return f"not measured: this system does not tell what a process holds; {bytes_text(use.budget)} were allowed"
    how = "of this process's own memory (RssAnon and RssShmem, sampled), pages of mapped files not counted"
    said = f"at most {bytes_text(use.peak)} {how}; {bytes_text(use.budget)} were allowed"
    return said if use.kept else f"{said}: EXCEEDED"
