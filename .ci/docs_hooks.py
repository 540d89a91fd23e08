"""The notebooks, which lie beside `docs/`, as pages of the documentation."""

import pathlib

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def _paths():
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def on_config(config):
    """Put them into the navigation."""
    pages = [{_title(path): f"notebooks/{path.name}"} for path in _paths()]
    config.nav.insert(-1, {"Notebooks": pages})
    return config


@event_priority(100)  # before the plugin that renders them
def on_files(files, config):
    for path in _paths():
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def _title(path):
    return path.stem.replace("_", " ").capitalize()
