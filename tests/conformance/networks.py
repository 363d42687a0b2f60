"""Small networks of the kinds that people write, with random weights, each with the place of every
IC layer of its rewritten form, written down by hand.

A place is the path of the IC layer and the layer that it reads; `input` is that of its model. Its
rate follows, where it is not 0.05.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import layers, ops

from tests.selection import Registry

CLASSES = 3


@dataclasses.dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        make: Function that builds it.
        shape: Tuple, the shape of one sample.
        places: String, the places of its IC layers.
        level: Registry, the smallest that its rewritten form is in.
        takes_ids: Whether the inputs are integers, of which 0 is masked.
    """

    make: Callable[[], keras.Model]
    shape: tuple[int, ...]
    places: str
    level: Registry = Registry.COMPLETE
    takes_ids: bool = False


def end():
    return layers.Dense(CLASSES, name="end")


def parts():
    """Two models, of which one feeds the other, with a BatchNorm at the seam."""
    encoder = [layers.Dense(6, name="e1"), layers.BatchNormalization(), layers.ReLU(name="relu")]
    decoder = [layers.BatchNormalization(), layers.Dense(6, "relu", name="d1"), end()]
    stack = [
        keras.Sequential([keras.Input((8,)), *encoder, layers.Dense(4, name="e2")], name="encoder"),
        keras.Sequential([keras.Input((4,)), *decoder], name="decoder"),
    ]
    return keras.Sequential([keras.Input((8,)), *stack])


def convnet():
    """The convolutional network of many tutorials: a dropout before the last layer."""
    stack = [
        layers.Conv2D(4, 3, activation="relu", name="c1"),
        layers.MaxPooling2D(name="p1"),
        layers.Conv2D(6, 3, activation="relu", name="c2"),
        layers.Flatten(name="flat"),
        layers.Dropout(0.5, name="drop"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *stack, end()])


def assignments():
    """Soft assignments of steps to clusters, as in NetVLAD."""
    inputs = keras.Input((6, 4))
    x = layers.Dense(5, "relu", name="stem")(inputs)
    shares = layers.Dense(4, "softmax", name="assign")(x)
    offsets = layers.Dense(5, use_bias=False, name="centers")(shares)
    x = layers.Subtract(name="rest")([x, offsets])
    x = layers.Dot(axes=1, name="clusters")([shares, x])
    return keras.Model(inputs, end()(layers.Flatten(name="flat")(x)))


def siamese():
    """Two inputs through one tower, and a decision on their distance."""
    pair = keras.Input((2, 8))
    stack = [layers.Dense(6, "relu", name="t1"), layers.Dense(4, name="t2")]
    tower = keras.Sequential([keras.Input((8,)), *stack], name="tower")
    distance = layers.Dot(axes=1, normalize=True)([tower(pair[:, 0]), tower(pair[:, 1])])
    return keras.Model(pair, end()(distance))


def unet():
    """Down and up again, with a connection past it."""
    inputs = keras.Input((8, 8, 3))
    x = past = layers.Conv2D(4, 3, padding="same", activation="relu", name="c1")(inputs)
    x = layers.MaxPooling2D(name="down")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="c2")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = layers.Concatenate(name="both")([x, past])
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="c3")(x)
    x = layers.Conv2D(CLASSES, 1, name="end")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))


def dilated():
    """A residual network of dilated convolutions over a series, as SpliceAI."""
    inputs = keras.Input((12, 4))
    x = layers.Conv1D(5, 1, name="stem")(inputs)
    for name, rate in (("a", 1), ("b", 2)):
        y = layers.ReLU(name=f"{name}_relu1")(layers.BatchNormalization(name=f"{name}_bn1")(x))
        y = layers.Conv1D(5, 3, dilation_rate=rate, padding="same", name=f"{name}1")(y)
        y = layers.ReLU(name=f"{name}_relu2")(layers.BatchNormalization(name=f"{name}_bn2")(y))
        y = layers.Conv1D(5, 3, dilation_rate=rate, padding="same", name=f"{name}2")(y)
        x = layers.Add(name=f"{name}_add")([x, y])
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, end()(x))


def xception():
    """Separable convolutions with a strided connection past them; no dense layer at the end."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization()(x))
    past = layers.Conv2D(6, 1, strides=2, use_bias=False, padding="same", name="past")(x)
    past = layers.BatchNormalization()(past)
    x = layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="s1")(x)
    x = layers.ReLU(name="s1_relu")(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="s2")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(layers.BatchNormalization()(x))
    x = layers.Add(name="add")([x, past])
    x = layers.Conv2D(CLASSES, 3, padding="same", name="end")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))


def external_attention():
    """A softmax along the steps, divided by its sums, that a dense layer reads."""
    inputs = keras.Input((6, 4))
    x = layers.Dense(5, "relu", name="stem")(inputs)
    shares = layers.Softmax(axis=1, name="softmax")(layers.Dense(4, name="keys")(x))
    shares = shares / (1e-9 + ops.sum(shares, axis=2, keepdims=True))
    x = layers.Add(name="join")([x, layers.Dense(5, name="values")(shares)])
    return keras.Model(inputs, end()(layers.GlobalAveragePooling1D(name="pool")(x)))


def pointnet():
    """The same layers for each point, the maximum over the points, and a dropout at the end."""
    stack = [
        layers.Conv1D(6, 1, name="p1"),
        layers.BatchNormalization(),
        layers.ReLU(name="relu1"),
        layers.Conv1D(8, 1, name="p2"),
        layers.BatchNormalization(),
        layers.ReLU(name="relu2"),
        layers.GlobalMaxPooling1D(name="pool"),
        layers.Dense(6, name="d1"),
        layers.BatchNormalization(),
        layers.ReLU(name="relu3"),
        layers.Dropout(0.3, name="drop"),
    ]
    return keras.Sequential([keras.Input((6, 3)), *stack, end()])


def deeplab():
    """Convolutions of several dilations over the same features, and one over their mean."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization()(x))
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    mean = layers.UpSampling2D(8)(layers.Conv2D(3, 1, activation="relu", name="m")(mean))
    branches = [
        layers.Conv2D(3, 3, dilation_rate=rate, padding="same", activation="relu", name=f"r{rate}")
        for rate in (1, 2, 3)
    ]
    x = layers.Concatenate(name="all")([*(branch(x) for branch in branches), mean])
    x = layers.Conv2D(5, 1, use_bias=False, name="project")(x)
    x = layers.ReLU(name="project_relu")(layers.BatchNormalization()(x))
    x = layers.Conv2D(CLASSES, 1, name="end")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))


def sequences():
    """A sequence model with masked steps."""
    stack = [
        layers.Embedding(7, 4, mask_zero=True, name="ids"),
        layers.LSTM(  # TensorFlow draws no orthogonal matrix in bfloat16.
            4, recurrent_initializer="glorot_uniform", return_sequences=True, name="lstm"
        ),
        layers.Dense(5, "relu", name="dense"),
        layers.GlobalAveragePooling1D(name="pool"),
    ]
    return keras.Sequential([keras.Input((6,), dtype="int32"), *stack, end()])


NETWORKS = {
    "seams of parts": Network(
        parts,
        (8,),
        "encoder/e2_ic: relu; decoder/d1_ic: input; decoder/end_ic: d1",
        Registry.SMALL,
    ),
    "trailing dropout": Network(convnet, (8, 8, 1), "c2_ic: p1; end_ic: c2 0", Registry.SMALL),
    "soft assignments": Network(assignments, (6, 4), "assign_ic: stem; end_ic: clusters"),
    "siamese": Network(siamese, (2, 8), "tower/t2_ic: t1"),
    "U-Net": Network(unet, (8, 8, 3), "c2_ic: down; up_ic: c2; c3_ic: both; end_ic: c3"),
    "dilated residual 1D": Network(
        dilated,
        (12, 4),
        "a1_ic: a_relu1; a2_ic: a_relu2; b1_ic: b_relu1; b2_ic: b_relu2; end_ic: pool",
    ),
    "mini-Xception": Network(xception, (8, 8, 3), "s1_ic: stem_relu; s2_ic: s1_relu; end_ic: add"),
    "external attention": Network(external_attention, (6, 4), "keys_ic: stem; end_ic: pool"),
    "PointNet": Network(pointnet, (6, 3), "p2_ic: relu1; d1_ic: pool; end_ic: relu3 0.3"),
    "DeepLab": Network(
        deeplab,
        (8, 8, 3),
        "r1_ic: relu; m_ic: mean; project_ic: all; end_ic: project_relu",
    ),
    "masked sequences": Network(
        sequences, (6,), "dense_ic: lstm; end_ic: pool", Registry.SMALL, takes_ids=True
    ),
}
