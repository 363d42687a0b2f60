"""Runs examples/quickstart.ipynb and writes docs/notebook.md, a page with what it gave.

python docs/notebook.py
"""

import base64
import configparser
from pathlib import Path

import nbclient
import nbformat

DOCS = Path(__file__).parent
NOTEBOOK = DOCS.parent / "examples" / "quickstart.ipynb"
PAGE, FIGURE = DOCS / "notebook.md", "images/notebook.png"
HOST = "https://colab.research.google.com/"


def links() -> str:
    """Where to get the notebook; to open it where notebooks are hosted needs the project's URL."""
    setup = configparser.ConfigParser()
    setup.read(DOCS.parent / "setup.cfg")
    urls = dict(line.split(" = ") for line in setup["metadata"]["project_urls"].split("\n") if line)
    download = "[Download this notebook](quickstart.ipynb)"
    if "Source" not in urls:
        return download
    source = urls["Source"].removeprefix("https://").replace(".com/", "/")
    badge = f"[![Open in Colab]({HOST}assets/colab-badge.svg)]"
    return f"{badge}({HOST}{source}/blob/main/examples/{NOTEBOOK.name}) {download}"


def sources(notebook) -> list[str]:
    """The cells as Markdown."""
    # Not as `python`, which the tests run block by block.
    return [
        cell.source if cell.cell_type == "markdown" else f"```py\n{cell.source}\n```"
        for cell in notebook.cells
    ]


def main() -> None:
    """Writes the page and its figure."""
    notebook = nbformat.read(NOTEBOOK, 4)
    parts = sources(notebook)
    nbclient.NotebookClient(notebook, timeout=1200).execute()
    title, _, rest = parts[0].partition("\n")
    text = [title, links(), rest.strip()]
    for part, cell in zip(parts[1:], notebook.cells[1:], strict=True):
        text += [part, *_shown(cell.get("outputs", ()))]
    PAGE.write_text("\n\n".join(filter(None, text)) + "\n", encoding="utf-8")


def _shown(outputs) -> list[str]:
    texts, figures = [], []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            (DOCS / FIGURE).write_bytes(base64.b64decode(data["image/png"]))
            figures.append(f"![Test accuracy by epoch of the two networks]({FIGURE})")
        elif output.get("name") != "stderr":
            lines = (output.get("text") or data["text/plain"]).splitlines()
            texts += [line for line in lines if not line.startswith("WARNING:tensorflow")]
    lines = "\n".join(texts)
    return [*([f"```text\n{lines}\n```"] if lines else []), *figures]


if __name__ == "__main__":
    main()
