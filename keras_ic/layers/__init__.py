"""The Independent-Component layer, and the layers that folding may leave."""

from keras_ic.layers.channel_affine import ChannelAffine, ChannelClip
from keras_ic.layers.independent_component import IC, IndependentComponent

__all__ = ["IC", "ChannelAffine", "ChannelClip", "IndependentComponent"]
