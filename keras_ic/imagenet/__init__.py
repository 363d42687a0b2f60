"""ImageNet, or images laid out like it: the input pipeline, the recipe, and a training run on as
many devices and machines as there are.
"""

from keras_ic.imagenet.building import network
from keras_ic.imagenet.inputs import DamagedDataError, Part, synthetic, training, validation
from keras_ic.imagenet.planning import TrainingPlan, plan
from keras_ic.imagenet.recipe import RECIPES, Recipe, named
from keras_ic.imagenet.running import run
from keras_ic.imagenet.sources import Source, find
from keras_ic.imagenet.timing import throughput

__all__ = [
    "RECIPES",
    "DamagedDataError",
    "Part",
    "Recipe",
    "Source",
    "TrainingPlan",
    "find",
    "named",
    "network",
    "plan",
    "run",
    "synthetic",
    "throughput",
    "training",
    "validation",
]
