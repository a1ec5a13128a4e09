"""Executes notebooks and keeps what they show: `python notebooks/execute.py quickstart analysis`.

The outputs are written into the .ipynb files, without what would be noise there: progress and
warnings (stderr), times, and the versions of the kernel.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def parameters_at(notebook: nbformat.NotebookNode) -> int:
    """Where the cell tagged `parameters` is. Raises ValueError if there is not exactly one."""
    cells = enumerate(notebook.cells)
    tagged = [i for i, cell in cells if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged `parameters`; tag one")
    return tagged[0]


def execute(
    path: Path, overrides: Mapping[str, Any] | None = None, timeout: float | None = None
) -> nbformat.NotebookNode:
    """The notebook, run from start to end in its own folder; the file stays as it is.

    Args:
      overrides: values that a cell after the one tagged `parameters` sets.
      timeout: seconds that a cell may take.

    Raises nbclient.exceptions.CellExecutionError, with the traceback of the cell that failed.
    """
    notebook = nbformat.read(path, as_version=4)
    if overrides:
        source = "\n".join(f"{name} = {value!r}" for name, value in overrides.items())
        cell = nbformat.v4.new_code_cell(source)
        notebook.cells.insert(parameters_at(notebook) + 1, cell)
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return notebook


def without_noise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same, changed in place, as it is to be committed."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="such as quickstart")
    for name in parser.parse_args().names:
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(without_noise(execute(path)), path)


if __name__ == "__main__":
    main()
