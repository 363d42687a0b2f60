"""Libraries that an extra of the package installs, imported at their first use.

A module says `from keras_ic.utils.lazy_imports import tensorflow as tf` at its top and uses `tf` as
ever; the import happens with the first attribute. `needed` gives a submodule in the same way.
"""

import importlib
from typing import Any


def needed(module: str, package: str, extra: str) -> Any:
    """The module, or one error with the pip command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is needed for this and cannot be imported ({error}): run `pip install"
            f' "keras-ic[{extra}]"`.'
        ) from error


class LazyModule:
    """A module that is imported when its first attribute is asked for."""

    def __init__(self, module: str, package: str, extra: str):
        self._wanted = module, package, extra

    def __getattr__(self, name: str) -> Any:
        return getattr(needed(*self._wanted), name)


tensorflow: Any = LazyModule("tensorflow", "TensorFlow", "tensorflow")
tensorflow_datasets: Any = LazyModule("tensorflow_datasets", "tensorflow-datasets", "data")
keras_tuner: Any = LazyModule("keras_tuner", "keras-tuner", "tune")
jax: Any = LazyModule("jax", "JAX", "jax")
