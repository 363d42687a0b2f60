"""The Independent-Component layer for Keras 3: BatchNorm and a little dropout in front of each
weight layer (Chen et al., 2019).
"""

from keras_ic import applications, distribution, saving, training, tuning
from keras_ic.calibration import calibrate, recalibrate
from keras_ic.independence import IndependenceMonitor, measure
from keras_ic.layers.independent_component import IC, IndependentComponent
from keras_ic.recalibration import Recalibration
from keras_ic.surgery import fold, plan, rewrite
from keras_ic.uncertainty import predict_with_uncertainty
from keras_ic.version import __version__

__all__ = [
    "IC",
    "IndependenceMonitor",
    "IndependentComponent",
    "Recalibration",
    "__version__",
    "applications",
    "calibrate",
    "distribution",
    "fold",
    "measure",
    "plan",
    "predict_with_uncertainty",
    "recalibrate",
    "rewrite",
    "saving",
    "training",
    "tuning",
]
