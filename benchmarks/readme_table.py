"""The README's tables that commands write, each between two marks that name its command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
README = REPOSITORY / "README.md"
BENCHMARKS = REPOSITORY / "benchmarks" / "README.md"


def marked(name: str, script: str, table: str) -> str:
    """A table between its marks; `script` is the file that makes it."""
    return f"<!-- {name}: begin (benchmarks/{Path(script).name} --render) -->\n{table}\n<!-- {name}: end -->"


def write(block: str, page: Path = README) -> None:
    """Put what `marked` gave in the place of what stands between the same marks of a page."""
    begin, *_, end = block.splitlines()
    text = page.read_text(encoding="utf-8")
    rendered, found = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{page.relative_to(REPOSITORY)}: {begin} stands {found} times. expected once.")
    page.write_text(rendered, encoding="utf-8")


def libraries(versions: dict[str, Any]) -> str:
    """Those that decide the figures, for the line below a table."""
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "trl", "peft"))
