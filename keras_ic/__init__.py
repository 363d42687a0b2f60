"""The Independent-Component layer for Keras 3: BatchNorm and a little dropout in front of each weight layer (Chen et al., 2019)."""

from keras_ic.layer import IC, IndependentComponent
from keras_ic.version import __version__

__all__ = ["IC", "IndependentComponent", "__version__"]
