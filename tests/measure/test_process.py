"""The memory of this process, and words for bytes."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.measure.process import MemoryUse, PeakAnonymous, anonymous_bytes, give_back_freed, parse_bytes


def test_words_for_bytes() -> None:
    assert [parse_bytes(text) for text in ("2GB", "1.5 GiB", "512mb", "1 B")] == [2 * 10**9, 3 * 2**29, 512 * 10**6, 1]
    assert [MemoryUse(5, peak).kept for peak in (5, 6, None)] == [True, False, None]


@pytest.mark.skipif(anonymous_bytes() is None, reason="the system does not tell what a process holds")
def test_the_peak_is_seen() -> None:
    before = anonymous_bytes()
    with PeakAnonymous() as watched:
        held = torch.ones(64 * 2**20, dtype=torch.uint8)
        watched._stop.wait(0.1)
        del held
    assert before is not None and watched.peak is not None and watched.peak >= before + 60 * 2**20
    give_back_freed()
    after = anonymous_bytes()
    assert after is not None and after < watched.peak


@pytest.mark.parametrize("text", ["", "2", "GB", "-2GB", "0 GB", "2 apples", "0.2 B"])
def test_words_that_are_no_bytes(text: str) -> None:
    with pytest.raises(BadInput, match="give a number and a unit"):
        parse_bytes(text)
