"""The paper's networks, and two more for CIFAR, in the usual and in the IC unit orders."""

from keras_ic.applications.densenet import DenseNet
from keras_ic.applications.resnet import ResNet
from keras_ic.applications.vgg import VGG16

__all__ = ["VGG16", "DenseNet", "ResNet"]
