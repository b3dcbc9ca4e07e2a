"""Tables, curves and pages from rows of results. Knows no task: a row is a mapping, a metric says how a key is read."""

from secateurs.report.page import Figure, Page, Section, render_page
from secateurs.report.plots import curve_png
from secateurs.report.pruned import pruning_page
from secateurs.report.rows import Metric, Spread, group, paired, spread, verdict
from secateurs.report.tables import Table, contest, contest_table

__all__ = [
    "Figure",
    "Metric",
    "Page",
    "Section",
    "Spread",
    "Table",
    "contest",
    "contest_table",
    "curve_png",
    "group",
    "paired",
    "pruning_page",
    "render_page",
    "spread",
    "verdict",
]
