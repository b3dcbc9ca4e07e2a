import struct

import pytest

from secateurs.errors import BadInput
from secateurs.report import Metric, curve_png
from secateurs.report.plots import THEMES

QUALITY, BYTES = Metric("quality", "quality", "%", scale=100), Metric("bytes", "size", "kB", scale=1e-3)
ROWS = [
    {
        "method": method,
        "label": f"{method}-{size}",
        "seed": seed,
        "quality": 0.9 + seed / 100 + lead,
        "bytes": size,
        "mark": "x",
    }
    for method, lead in (("gmp", 0.02), ("dense", 0.0))
    for size in (1000, 5000)
    for seed in (0, 1)
]
NAMES = {"gmp": "pruned", "dense": "small dense"}


def drawn(figure):
    """Heights of the mean curves of a figure, and every text in it."""
    axes = figure.axes[0]
    curves = [[round(y, 6) for y in line.get_ydata()] for line in axes.lines if line.get_marker() not in (None, "None", "")]
    return curves, {text.get_text() for text in [*axes.texts, *axes.get_legend().get_texts()]}


def pixels(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_a_png_of_the_promised_shape_in_both_dresses():
    light, dark = (curve_png(ROWS, QUALITY, BYTES, names=NAMES, theme=theme) for theme in THEMES)
    assert pixels(light) == pixels(dark) == (1144, 880)
    assert light != dark


def test_curves_run_through_the_means_and_are_named(monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    curve_png(ROWS, QUALITY, BYTES, names=NAMES)
    curves, texts = drawn(figures[0])
    assert curves == [[92.5, 92.5], [90.5, 90.5]]
    assert {"pruned", "small dense", "x"} <= texts
    assert figures[0].axes[0].get_xscale() == "log"


def test_same_rows_same_bytes():
    assert curve_png(ROWS, QUALITY, BYTES, names=NAMES) == curve_png(ROWS, QUALITY, BYTES, names=NAMES)


def test_a_method_without_rows_and_an_unknown_theme_are_refused():
    with pytest.raises(BadInput, match=r"no rows of method 'random'.*gmp, dense"):
        curve_png(ROWS, QUALITY, BYTES, names={"random": "random"})
    with pytest.raises(BadInput, match=r"'drak' is unknown.*'dark'"):
        curve_png(ROWS, QUALITY, BYTES, names=NAMES, theme="drak")


def test_more_curves_than_colours_are_refused():
    rows = [{**ROWS[0], "method": str(i), "label": str(i)} for i in range(5)]
    with pytest.raises(BadInput, match="5 curves"):
        curve_png(rows, QUALITY, BYTES, names={str(i): str(i) for i in range(5)})
