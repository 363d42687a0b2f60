"""The Independent-Component layer for Keras 3: BatchNorm and a little dropout in front of each
weight layer (Chen et al., 2019).
"""

from keras_ic import applications, data, distribution, experiments, imagenet, saving, tuning
from keras_ic.independence import IndependenceMonitor, measure
from keras_ic.layers.independent_component import IC, IndependentComponent
from keras_ic.surgery import calibrate, fold, plan, plan_fold, recalibrate, rewrite
from keras_ic.uncertainty import predict_with_uncertainty
from keras_ic.version import __version__

__all__ = [
    "IC",
    "IndependenceMonitor",
    "IndependentComponent",
    "__version__",
    "applications",
    "calibrate",
    "data",
    "distribution",
    "experiments",
    "fold",
    "imagenet",
    "measure",
    "plan",
    "plan_fold",
    "predict_with_uncertainty",
    "recalibrate",
    "rewrite",
    "saving",
    "tuning",
]
