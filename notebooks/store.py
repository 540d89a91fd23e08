"""Execute notebooks and store their outputs: each NAME.py of this folder becomes NAME.ipynb.

pip install -e '.[notebooks]'
python notebooks/store.py            # all of them
python notebooks/store.py multigrid  # one
"""

import pathlib
import sys

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def store(name: str) -> None:
    """Write NAME.ipynb: the cells of NAME.py and what they print and draw."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # and not at random: a new run should change outputs only
    settings = {"metadata": {"path": str(FOLDER)}}  # where matplotlibrc is
    nbclient.NotebookClient(notebook, record_timing=False, resources=settings).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this Python
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    own = pathlib.Path(__file__).stem
    everything = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != own)
    for name in sys.argv[1:] or everything:
        store(name)
        print(f"{name}.ipynb: {(FOLDER / f'{name}.ipynb').stat().st_size // 1024} kB")
