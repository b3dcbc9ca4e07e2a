import json
import re
from html.parser import HTMLParser

import pytest

from secateurs.comparing.outcome import Outcome
from secateurs.comparing.reporting.page import matrix, render
from secateurs.comparing.reporting.points import gather
from tests.comparing.made_up import failed, row, rows

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
NASTY = '</script><img src=x onerror=alert(1)>&"$'


class Reader(HTMLParser):
    """Tags with their attributes, the text between them, and what stands in scripts; complains of tags not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.scripts, self.open = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


@pytest.fixture(scope="module")
def html():
    return render(Outcome([*rows(), failed(seed=9)], ["line 3 is not a whole row"]))


def test_the_page_asks_no_other_machine_for_anything(html):
    page = Reader(html)
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "srcset", "href")]
    assert addresses == ["table.md", "pairs.md", "layers.md", "times.md", "digits.png", "letters.png", "signs.png"]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "http" not in policy and "eval" not in policy
    assert sum(len(script) > 1e6 for script in page.scripts) == 1  # plotly, once
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "img")]


def test_warnings_stand_before_the_first_chart(html):
    text = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    parts = ("2 warnings", "line 3 is not a whole row", "failed with ValueError", 'class="chart"')
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "found nothing unfair" not in text


def test_a_fair_comparison_says_so():
    made = rows()
    assert "found nothing unfair" in render(Outcome(made)) and "warnings" not in Reader(render(Outcome(made))).text


def test_hostile_names_are_shown_and_not_obeyed():
    made = [{**r, "arm": NASTY} if r["arm"] == "gmp" else r for r in rows()]
    names = {"task": f"{NASTY} task", "comparison": NASTY, "run": f"{NASTY} run"}
    made = [{**r, **names} if r["task"] == "digits" else r for r in made]
    fails = {**failed(seed=8), **names, "error": {"type": NASTY, "message": NASTY}}
    page = Reader(render(Outcome([*made, fails], [NASTY])))
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert page.text.count(NASTY) > 5
    plots = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert len(plots) == 3 and any("&lt;/script&gt;" in trace["name"] for trace in plots[0]["traces"])


def test_the_charts_are_those_of_the_tasks(html):
    plots = [json.loads(script) for script in Reader(html).scripts if script.startswith("{")]
    assert [len(plot["traces"]) for plot in plots] == [7, 7, 7]
    buttons = [attributes for tag, attributes in Reader(html).tags if tag == "button"]
    assert sum("data-x" in b for b in buttons) == 15 and sum(b["aria-pressed"] == "true" for b in buttons) == 6


def test_only_what_can_be_told_apart_is_marked():
    task = gather([{**r, "value": 0.5} if (r["arm"], r["seed"]) == ("gmp", 0) else r for r in rows()]).tasks[0]
    lines = matrix(task, "90 %")
    kinds = {(arm, other): cell.kind for arm, cells in lines for (other, _), cell in zip(lines, cells, strict=True)}
    assert kinds["magnitude", "random"] == "ahead" and kinds["random", "magnitude"] == "behind"
    assert kinds["gmp", "magnitude"] == kinds["magnitude", "gmp"] == "unclear"
    assert kinds["gmp", "gmp"] == "same"


def test_less_is_marked_as_better_where_it_is():
    less = {"metric": "loss", "direction": "lower", "percent": False}
    made = [row(arm=arm, point="90 %", seed=s, value=v + s / 10, **less)
            for arm, v in (("gmp", 1), ("magnitude", 2)) for s in range(3)]  # fmt: skip
    (_, cells), _ = matrix(gather(made).tasks[0], "90 %")
    assert (cells[1].text, cells[1].kind) == ("-1.000 ± 0.000", "ahead") and "better on 3 of 3 seeds" in cells[1].title
