"""Write the README's table and picture from the committed summary of a demo run: ``python -m benchmarks.readme``.

A new summary comes from ``make demo`` and ``cp demo-out/summary.json benchmarks/results/demo.json``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from secateurs.demo.summary import make_figure, make_table
from secateurs.errors import BadInput

__all__ = ["fill", "main"]

ROOT = Path(__file__).parents[1]
RESULTS, README, IMAGES = ROOT / "benchmarks" / "results" / "demo.json", ROOT / "README.md", ROOT / "docs" / "img"
PICTURE = """\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/img/demo-dark.png">
  <img alt="{alt}" src="docs/img/demo.png" width="640">
</picture>
"""


def main() -> int:
    """Rewrite the README between its markers, and the two pictures."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure = make_figure(found["rows"])
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "demo.png").write_bytes(figure.light)
    (IMAGES / "demo-dark.png").write_bytes(figure.dark)
    said = "".join(f"- {sentence}\n" for sentence in [*found["findings"], f"{found['reload'][1]}."])
    text = README.read_text(encoding="utf-8")
    text = fill(text, "table:demo", f"{make_table(found['rows'], found['latency']).markdown()}\n{said}")
    README.write_text(fill(text, "picture:demo", PICTURE.format(alt=figure.alt)), encoding="utf-8")
    print(f"wrote {README}")
    return 0


def fill(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between its markers ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        BadInput: the markers are not there.
    """
    pattern = re.compile(f"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not pattern.search(text):
        raise BadInput(f"the text has no <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda found: found[1] + content + found[2], text)


if __name__ == "__main__":
    raise SystemExit(main())
