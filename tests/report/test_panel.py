"""Where bars, dots, lines and labels stand."""

import pytest

from secateurs.report.panel import Group, Panel


def groups(*values: float) -> tuple[Group, ...]:
    return tuple(Group(str(i), ((f"layer {i}", value),)) for i, value in enumerate(values))


def test_bars_stand_on_the_line_of_0_and_are_as_high_as_their_share():
    panel = Panel("Removed", groups(0.5, 0.25, 1.0), percent=True, top=1.0)
    first, second, third = panel.marks
    assert first.height == pytest.approx(2 * second.height, abs=0.2)
    assert third.height == pytest.approx(2 * first.height, abs=0.2)
    assert all(mark.y + mark.height == pytest.approx(panel.base, abs=0.11) for mark in panel.marks)
    assert [text for _, text in panel.ticks] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert panel.ticks[0][0] == panel.base and panel.ticks[-1][0] == pytest.approx(third.y)
    assert second.says == "layer 1: 25.00 %"
    left, right = panel.sides
    assert all(left < mark.x and mark.x + mark.width < right for mark in panel.marks)


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0.036, ["0", "0.01", "0.02", "0.03", "0.04"]), (7, ["0", "2", "4", "6", "8"]), (0, ["0", "0.25", "0.5", "0.75", "1"]),
     (1e-7, ["0", "2.5e-08", "5e-08", "7.5e-08", "1e-07"])],
)  # fmt: skip
def test_an_axis_ends_above_its_highest_value_on_a_round_number(highest, ticks):
    panel = Panel("Error", groups(highest / 2, highest), "dots")
    assert [text for _, text in panel.ticks] == ticks
    assert panel.marks[1].y >= panel.ticks[-1][0]


def test_of_many_groups_every_fifth_is_labelled_and_every_list_begins_anew():
    lists = {0: "encoder", 60: "decoder"}
    many = tuple(Group(str(i % 60), ((str(i), 0.5),), lists.get(i, "")) for i in range(120))
    shown = [(label, under) for _, label, under in Panel("Removed", many).labels if label or under]
    assert shown[0] == ("0", "encoder") and shown[1] == ("5", "") and ("0", "decoder") in shown and len(shown) == 24


def test_nothing_to_draw_is_an_empty_plot():
    panel = Panel("Removed", ())
    assert panel.marks == [] and list(panel.labels) == [] and len(panel.ticks) >= 2
