"""What came out of the properties, entry by entry: gathered over one run or several as JSON, and
shown as a table in Markdown.

python -m tests.conformance.matrix      brings docs/conformance.md and README.md up to date with
docs/results/conformance
"""

import json
import pathlib
import re

from keras_ic import saving
from tests.conformance.registry import ENTRIES
from tests.outcome import versions

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ROOT / "docs" / "conformance.md", ROOT / "README.md"
RESULTS = ROOT / "docs" / "results" / "conformance"
SIGNS = {"passed": "✓", "skipped": "-", "failed": "NO"}
# A cell of several tests is failed if one is, and passed if one is that applies.
WORST = ("failed", "passed", "skipped")


class Matrix:
    """The cells of one backend.

    Args:
        versions: Dictionary of what ran; cells of other versions are no part of the same matrix.
        cells: Dictionary from "entry | property" to a dictionary of `outcome` and `reason`.
        seconds: Float, how long the runs took together.
    """

    def __init__(self, versions, cells, seconds):
        self.versions, self.cells, self.seconds = versions, cells, seconds

    @classmethod
    def new(cls):
        return cls(versions(), {}, 0.0)

    @classmethod
    def read(cls, path):
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def so_far(cls, path):
        """The matrix that a run adds to: that of the file, or a new one if there is none, or other
        versions made it.
        """
        new = cls.new()
        return (
            cls.read(path)
            if path is not None and path.exists() and cls.read(path).versions == new.versions
            else new
        )

    def write(self, path):
        content = {"versions": self.versions, "seconds": round(self.seconds), "cells": self.cells}
        with saving.replacing(path) as new:
            new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def add(self, results, seconds):
        """Takes the results of a run, `(kind, entry, property, outcome, reason)`, in place of what
        the same cells were before.
        """
        self.seconds += seconds
        new: dict = {}
        for _, entry, name, outcome, reason in results:
            key = f"{entry} | {name}"
            if key not in new or WORST.index(outcome) < WORST.index(new[key]["outcome"]):
                new[key] = {"outcome": outcome, "reason": reason}
        self.cells = dict(sorted({**self.cells, **new}.items()))

    def summary(self):
        outcomes = [cell["outcome"] for cell in self.cells.values()]
        rows, columns = ({key.split(" | ")[part] for key in self.cells} for part in (0, 1))
        shown = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{len(rows)} models, {len(columns)} properties: {outcomes.count('passed')} passed,"
            f" {outcomes.count('skipped')} not applicable, {outcomes.count('failed')} failed,"
            f" {len(rows) * len(columns) - len(outcomes)} not run ({shown})."
        )

    def table(self):
        properties = sorted({key.split(" | ")[1] for key in self.cells})
        kinds = list(dict.fromkeys(entry.kind for entry in ENTRIES.values()))
        names = [
            name for name in ENTRIES if any(f"{name} | {each}" in self.cells for each in properties)
        ]
        names.sort(key=lambda name: kinds.index(ENTRIES[name].kind))
        reasons: dict = {}  # reason -> its number
        lines = [
            self.summary(),
            "",
            f"| model | {' | '.join(each.replace('_', ' ') for each in properties)} |",
            "| --- |" + " --- |" * len(properties),
        ]
        kind = None
        for name in names:
            if ENTRIES[name].kind != kind:
                kind = ENTRIES[name].kind
                lines.append(f"| **{kind}** |" + " |" * len(properties))
            shown = []
            for each in properties:
                cell = self.cells.get(f"{name} | {each}")
                number = (
                    reasons.setdefault(cell["reason"], len(reasons) + 1)
                    if cell and cell["reason"]
                    else ""
                )
                shown.append(
                    f"{SIGNS[cell['outcome']]}{f' ({number})' if number else ''}"
                    if cell
                    else "not run"
                )
            lines.append(f"| {name} | {' | '.join(shown)} |")
        return "\n".join(
            [*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())]
        ).rstrip()


def page(text):
    """The page, with the matrix of each backend, or the summaries of all, between its marks."""

    def shown(mark):
        path = RESULTS / f"{mark[1]}.json"
        body = Matrix.read(path).table() if path.exists() else "Not run yet."
        return f"<!-- matrix of {mark[1]} -->\n{body}\n<!-- end of the matrix -->"

    text = re.sub(
        r"<!-- matrix of (\w+) -->\n.*?\n<!-- end of the matrix -->", shown, text, flags=re.DOTALL
    )
    summaries = "".join(
        f"- {Matrix.read(path).summary()}\n" for path in sorted(RESULTS.glob("*.json"))
    )
    return re.sub(
        r"(<!-- summaries -->\n).*?(<!-- end of the summaries -->)",
        lambda mark: mark[1] + summaries + mark[2],
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
