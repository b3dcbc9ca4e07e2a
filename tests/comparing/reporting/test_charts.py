import html
import io

import pytest

from secateurs.comparing.reporting.charts import chart, curves
from secateurs.comparing.reporting.points import gather
from secateurs.comparing.reporting.stills import still
from secateurs.comparing.reporting.styles import styles
from tests.comparing.made_up import row, rows


def drawn(made=None):
    gathered = gather(made or rows(tasks=("digits",)))
    return gathered.tasks[0], chart(gathered.tasks[0], styles(gathered.tasks))


def test_every_arm_is_a_trace_and_the_dense_model_a_band_over_the_whole_plot():
    _, figure = drawn()
    names = [trace["name"] for trace in figure["traces"]]
    assert names == ["dense", "dense", "small-dense", "random", "gmp", "magnitude", "scratch-e of magnitude"]
    assert [trace["legendgroup"] for trace in figure["traces"]] == names
    assert [trace.get("showlegend", True) for trace in figure["traces"]] == [False] + [True] * 6
    for axis in figure["x"]:
        low, high = axis["range"]
        assert axis["values"][0] == [low, high, high, low] and axis["values"][1] == [low, high]
        assert all(low < place < high for line in axis["values"][2:] for place in line)
    low, _, high, _ = figure["y"][0]["values"][0]
    error = 0.1 / 3**0.5
    assert (low, high) == pytest.approx((95.1 - error, 95.1 + error))


def test_places_and_standard_errors_of_a_trace():
    _, figure = drawn()
    gmp = [trace["name"] for trace in figure["traces"]].index("gmp")
    assert figure["x"][0]["label"] == "density" and figure["x"][0]["values"][gmp] == pytest.approx([36.0, 28.0])
    assert figure["y"][0]["values"][gmp] == pytest.approx([93.1, 88.1])
    assert figure["y"][0]["errors"][gmp] == pytest.approx([0.1 / 3**0.5] * 2)


def test_hover_names_every_run_with_its_raw_value():
    _, figure = drawn()
    gmp = next(trace for trace in figure["traces"] if trace["name"] == "gmp")
    said = gmp["text"][1].split("<br>")
    assert said[0] == "<b>gmp at 90 %</b>" and "88.10 ± 0.06 %, 3 seeds" in said[1] and "1,120 bytes" in said[3]
    assert said[4:] == [f"{88 + s / 10:.2f}  digits-gmp-90-%-seed{s}-0123456789" for s in range(3)]


def test_markup_in_names_reaches_plotly_as_text():
    nasty = '<a href="javascript:alert(1)">x</a>'
    _, figure = drawn([row(arm=nasty, point="90 %", protocol="prune", method="gmp"), row()])
    trace = figure["traces"][-1]
    assert trace["name"] == html.escape(nasty) and "<a" not in trace["text"][0]


def test_without_a_dense_model_there_is_no_band():
    task, figure = drawn([row(arm="gmp", point="90 %")])
    assert [trace["name"] for trace in figure["traces"]] == ["gmp"] == list(curves(task))


def test_no_two_arms_look_alike_even_in_greyscale():
    made = [row(arm=f"arm {i}", point="90 %", protocol="prune", method="gmp") for i in range(30)]
    looks = styles(gather([*made, *rows()]).tasks)
    assert len({(look.marker, look.dash, look.light) for look in looks.values()}) == len(looks) == 36
    first = [looks[f"arm {i}"] for i in (0, 1, 10, 11, 12, 13, 14, 15)]
    assert len({(look.marker, look.dash) for look in first}) == len({look.light for look in first}) == 8


def test_baselines_look_the_same_in_every_comparison():
    one, other = styles(gather(rows()).tasks), styles(gather(rows(arms=("random", "small-dense", "gmp"))).tasks)
    assert all(one[name] == other[name] for name in ("dense", "small-dense", "random"))


@pytest.mark.parametrize("made", [rows(tasks=("digits",)), [row(arm="a$b$", point="90 %", value=1.0), row(value=1.0)]])
def test_a_still_is_a_picture_with_something_on_it(made):
    image = pytest.importorskip("matplotlib.image")
    gathered = gather(made)
    png = still(gathered.tasks[0], styles(gathered.tasks))
    pixels = image.imread(io.BytesIO(png))[..., :3]
    assert pixels.shape[1] > 1000 and (pixels != 1).any(axis=2).mean() > 0.005
    assert still(gathered.tasks[0], styles(gathered.tasks)) == png
