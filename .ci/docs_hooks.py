"""The notebooks, which lie beside `docs/`, as pages of the documentation."""

import pathlib

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent


def _paths():
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def on_config(config):
    """Put them into the navigation."""
    pages = [{_title(path): f"notebooks/{path.name}"} for path in _paths()]
    config.nav.insert(-1, {"Notebooks": pages})
    return config


@event_priority(100)  # before the plugin that renders them
def on_files(files, config):
    for path in _paths():
        name = f"notebooks/{path.name}"
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _title(path):
    return path.stem.replace("_", " ").capitalize()
