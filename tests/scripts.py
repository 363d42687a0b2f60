"""The scripts of examples/ and benchmarks/ as modules."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def script(path):
    """The script at a path from the root of the project."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
