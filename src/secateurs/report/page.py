"""One HTML file that needs nothing else: styles and images inside, no script, no address of another machine."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources

from secateurs.extras import require
from secateurs.report.panel import Panel
from secateurs.report.tables import Table

__all__ = ["Figure", "Page", "Section", "render_page"]


@dataclass(frozen=True)
class Figure:
    """A PNG for light surroundings and one for dark ones."""

    light: bytes
    dark: bytes
    alt: str
    caption: str = ""

    @property
    def light_uri(self) -> str:
        """The light image as a ``data:`` address."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark image as a ``data:`` address."""
        return _data_uri(self.dark)


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order: sentences, a table, a figure, panels, preformatted text."""

    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    figure: Figure | None = None
    code: str = ""
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page: title, one opening sentence, checks that were made with their outcome, sections, a line at the foot."""

    title: str
    opening: str
    sections: tuple[Section, ...]
    checks: tuple[tuple[bool, str], ...] = ()
    foot: str = ""


def render_page(page: Page) -> str:
    """``page`` as HTML. Everything in it is text: markup in a label or a sentence is shown, never obeyed."""
    template = resources.files("secateurs.report").joinpath("page.html").read_text(encoding="utf-8")
    jinja2 = require("jinja2", "plots")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(page=page)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
