"""Searching dropout rates, and what goes with them, with Keras Tuner. Importing it imports Keras
Tuner at the first use of a name alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_ic.tuning.hypermodels import ICHyperModel, ICResNetHyperModel
    from keras_ic.tuning.reporting import report
    from keras_ic.tuning.searching import search
    from keras_ic.tuning.space import SearchSpace

PLACES = {
    "ICHyperModel": "hypermodels",
    "ICResNetHyperModel": "hypermodels",
    "SearchSpace": "space",
    "report": "reporting",
    "search": "searching",
}

__all__ = ["ICHyperModel", "ICResNetHyperModel", "SearchSpace", "report", "search"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
