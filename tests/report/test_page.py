import base64
import re
from html.parser import HTMLParser

from secateurs.report import Figure, Page, Section, Table, render_page

NASTY = '<script>alert("x")</script> & Söhne'
TABLE = Table(
    ("removed", "model", "quality"), ((("90 %", NASTY, "1.0"),), (("", "dense", "0.5"),)), left=2, caption="One seed."
)
FIGURE = Figure(b"light image", b"dark image", 'a "curve"', "What it shows.")
PAGE = Page(
    f"Title {NASTY}",
    "An opening.",
    (Section("Words", ("first", NASTY)), Section("Numbers", ("one sentence",), TABLE, FIGURE, code="sparsity: 0.9\n<b>")),
    checks=((True, "reloaded"), (False, "the other thing")),
    foot="The end.",
)


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them; complains of tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_nothing_else():
    html = render_page(PAGE)
    page = Reader(html)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html.replace("\n", " "))
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "srcset", "href")]
    assert addresses == [FIGURE.dark_uri, FIGURE.light_uri]
    assert base64.b64decode(FIGURE.light_uri.partition(",")[2]) == b"light image"
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]


def test_markup_in_labels_and_sentences_is_shown_and_not_obeyed():
    page = Reader(render_page(PAGE))
    assert page.text.count(NASTY) == 2  # the sentence and the cell
    assert f"Title {NASTY}" in page.text
    assert "sparsity: 0.9\n<b>" in page.text


def test_a_phone_finds_the_headings_beside_the_cells():
    html = render_page(PAGE)
    cells = [attributes for tag, attributes in Reader(html).tags if tag == "td"]
    assert [cell["data-heading"] for cell in cells] == ["removed", "model", "quality"] * 2
    assert 'name="viewport"' in html and "prefers-color-scheme: dark" in html


def test_what_is_absent_leaves_no_trace():
    page = Reader(render_page(Page("T", "O", (Section("Only words", ("one",)),))))
    assert not [tag for tag, _ in page.tags if tag in ("table", "figure", "pre", "ul", "footer")]


def test_checks_say_passed_and_failed():
    text = " ".join("".join(Reader(render_page(PAGE)).text).split())
    assert "passed reloaded failed the other thing" in text
