import io

import pytest

from secateurs.errors import BadInput
from secateurs.report import Metric, Table, contest, contest_table

QUALITY = Metric("quality", "quality", "%", scale=100)
BYTES = Metric("bytes", "bytes", digits=0, repeated=False)


def row(point, method, label, seed, quality, size):
    return {"point": point, "method": method, "label": label, "seed": seed, "quality": quality, "bytes": size}


ROWS = [
    row("0 %", "dense", "dense x1", 0, 0.99, 9000),
    row("0 %", "dense", "dense x1", 1, 0.97, 9000),
    row("90 %", "gmp", "sparse 90 %", 0, 0.96, 1500),
    row("90 %", "gmp", "sparse 90 %", 1, 0.94, 1500),
    row("90 %", "dense", "dense x0.3", 0, 0.93, 1510),
    row("90 %", "dense", "dense x0.3", 1, 0.95, 1510),
]


def test_the_table_holds_means_and_differences_that_can_be_checked_by_eye():
    table = contest_table(ROWS, QUALITY, [BYTES], corner="removed")
    assert table.headings == ("removed", "model", "quality, %", "vs dense", "bytes")
    assert table.sections == (
        (("0 %", "dense x1", "98.0 ± 1.4", "", "9,000"),),
        (
            ("90 %", "sparse 90 %", "95.0 ± 1.4", "+1.0 ± 2.8", "1,500"),  # +3 and -1 points
            ("", "dense x0.3", "94.0 ± 1.4", "", "1,510"),
        ),
    )


def test_several_challengers_meet_one_rival():
    rows = [*ROWS, row("90 %", "random", "random 90 %", 0, 0.5, 1500), row("90 %", "random", "random 90 %", 1, 0.5, 1500)]
    found = [(c.point, c.rows[0]["label"], round(c.differences.mean, 6)) for c in contest(rows, QUALITY)]
    assert found == [("90 %", "sparse 90 %", 0.01), ("90 %", "random 90 %", -0.44)]


def test_two_rivals_at_one_point_are_refused():
    with pytest.raises(BadInput, match="'90 %' has 2 labels of method 'dense'"):
        contest([*ROWS, row("90 %", "dense", "dense x0.4", 0, 0.9, 1600)], QUALITY)


def test_a_rival_without_the_same_seeds_is_refused():
    with pytest.raises(BadInput, match="cannot pair"):
        contest(ROWS[:-1], QUALITY)


def test_markdown():
    table = Table(("name", "n"), ((("a|b", "1"),), (("c", "22"),)), caption="Counts.")
    assert table.markdown() == "| name | n |\n| :-- | --: |\n| a\\|b | 1 |\n| c | 22 |\n\nCounts.\n"


def test_plain_text_aligns_words_left_and_numbers_right():
    table = Table(("name", "n"), ((("a", "1"),), (("bb", "22"),)))
    assert table.plain() == "name   n\n--------\na      1\n\nbb    22\n"


def test_rich_prints_cells_literally_and_fits_100_columns():
    from rich.console import Console

    table = contest_table([*ROWS, row("95 %", "gmp", "[bold]95[/]", 0, 0.9, 800)], QUALITY, [BYTES], corner="removed")
    console = Console(file=io.StringIO(), width=100)
    console.print(table.rich())
    text = console.file.getvalue()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "removed model quality, % vs dense bytes" in lines
    assert "90 % sparse 90 % 95.0 ± 1.4 +1.0 ± 2.8 1,500" in lines
    assert "95 % [bold]95[/] 90.0 800" in lines


def test_a_line_of_another_length_is_refused():
    with pytest.raises(BadInput, match="1 cells under 2 headings"):
        Table(("name", "n"), ((("a",),),))


@pytest.mark.parametrize("width", [40, 79, 80, 100])
def test_no_word_of_the_caption_is_lost(width):
    from rich.console import Console

    words = " ".join(f"word{i}" for i in range(40))
    console = Console(file=io.StringIO(), width=width)
    console.print(Table(("a", "b"), ((("x" * 20, "1" * 15),),), caption=words).rich())
    assert words in " ".join(console.file.getvalue().split())
