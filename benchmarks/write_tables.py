"""Write the tables of the results into the pages that show them: ``python benchmarks/write_tables.py``."""

from __future__ import annotations

import json
from pathlib import Path

from toxscreen.benchmark import TABLES, markdown_table
from toxscreen.benchmark.tables import filled

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "scale.md")


def made() -> dict[str, str]:
    """Return the table of every result that is there, by the name of its marks."""
    files = {name: ROOT / "benchmarks" / "results" / f"{name}.json" for name in TABLES}
    results = {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.exists()}
    tables = {name: markdown_table(name, document) for name, document in results.items()}
    if "speed" in results:  # a page has some of its rows for itself
        rows = [cell for cell in results["speed"]["cells"] if cell["case"].startswith("cluster:")]
        tables["cluster"] = markdown_table("speed", results["speed"] | {"cells": rows})
    return tables


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), made()), "utf-8")
