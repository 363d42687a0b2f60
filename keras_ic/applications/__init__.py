"""The paper's networks, in the usual and in the IC unit orders."""

from keras_ic.applications.resnet import ResNet

__all__ = ["ResNet"]
