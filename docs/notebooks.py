"""Tutorials as notebooks: what is kept is text with blocks of Python, which become cells, are executed, and shown.

Of docs/tutorials/NAME.md, the site has a page with what every block printed and drew, and NAME.ipynb to download.
"""

import base64
import re
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\(\.\./[^)]+\)")
WIDTH = 100
"""Characters of a printed line that fit beside a menu."""


def cells_of(text: str) -> NotebookNode:
    """A notebook of a page: its blocks of Python as code, all between them as text."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for at, part in enumerate(BLOCK.split(text)):
        new = nbformat.v4.new_code_cell if at % 2 else nbformat.v4.new_markdown_cell
        if part.strip():
            made.cells.append(new(part.strip(), id=f"cell-{len(made.cells)}"))
    return made


def execute(notebook: NotebookNode) -> None:
    """Run all cells, one after another, in a folder of their own. Raises CellExecutionError where one fails."""
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()


def page_of(notebook: NotebookNode, name: str, folder: Path) -> str:
    """The page of an executed notebook; its pictures are written into a folder."""
    parts, said, drawn = [], "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            said = " ".join(cell.source.split("\n\n")[-1].split()).rstrip(":.")
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data: dict[str, Any] = output.get("data", {})
            if "image/png" in data:
                drawn += 1
                (folder / f"{name}-{drawn}.png").write_bytes(base64.b64decode(data["image/png"]))
                parts.append(f"![{said.translate(str.maketrans('[]', '()'))}]({name}-{drawn}.png)")
            elif printed := output.get("text", data.get("text/plain", "")).rstrip():
                lines = [textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in printed.splitlines()]
                parts.append("```text\n" + "\n".join(lines) + "\n```")
    title, _, rest = "\n\n".join(parts).partition("\n\n")
    return f"{title}\n\n[This page as a notebook]({name}.ipynb)\n\n{rest}\n"


def write(folder: Path) -> None:
    """Execute every tutorial in a folder, and write its page and its notebook beside it."""
    for path in sorted(folder.glob("*.md")):
        notebook = cells_of(path.read_text(encoding="utf-8"))
        execute(notebook)
        path.write_text(page_of(notebook, path.stem, folder), encoding="utf-8")
        for cell in notebook.cells:
            cell.source = LINK.sub(r"\1", cell.source) if cell.cell_type == "markdown" else cell.source
            cell.metadata.pop("execution", None)  # when it was run
        nbformat.write(notebook, folder / f"{path.stem}.ipynb")
