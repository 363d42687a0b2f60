"""Training on many devices and machines: the strategy, and models whose `fit` works under it."""

from keras_ic.distribution.cluster import Cluster, cluster
from keras_ic.distribution.keras_fit import prepare
from keras_ic.distribution.peers import LostPeerError
from keras_ic.distribution.strategies import KINDS, strategy

__all__ = ["KINDS", "Cluster", "LostPeerError", "cluster", "prepare", "strategy"]
