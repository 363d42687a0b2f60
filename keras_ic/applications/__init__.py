"""The paper's networks, and others for small and large images, each in every order of layers."""

from keras_ic.applications.densenet import DenseNet
from keras_ic.applications.orders import ALIASES, ORDERS
from keras_ic.applications.plain import PlainCNN
from keras_ic.applications.resnet import ResNet
from keras_ic.applications.resnet_v15 import ResNetV15
from keras_ic.applications.vgg import VGG16

__all__ = ["ALIASES", "ORDERS", "VGG16", "DenseNet", "PlainCNN", "ResNet", "ResNetV15"]
