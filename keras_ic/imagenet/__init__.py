"""ImageNet, or images laid out like it: the input pipeline, the recipe, and a training run on as many devices and machines as there are."""

from keras_ic.imagenet.inputs import DamagedDataError, Part, synthetic, training, validation
from keras_ic.imagenet.sources import Source, find

__all__ = ["DamagedDataError", "Part", "Source", "find", "synthetic", "training", "validation"]
