"""Libraries that an extra of the package installs, imported where they are used."""

import importlib
from typing import Any


def needed(module: str, package: str, extra: str) -> Any:
    """The module, or one error with the pip command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{package} is needed for this and cannot be imported ({error}): run `pip install "keras-ic[{extra}]"`.') from error
