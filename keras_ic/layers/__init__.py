"""The Independent-Component layer."""

from keras_ic.layers.independent_component import IC, IndependentComponent

__all__ = ["IC", "IndependentComponent"]
