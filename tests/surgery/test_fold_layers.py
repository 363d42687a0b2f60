"""Every kind of linear layer, padding, stride, dilation, groups and size of kernel, after an IC
layer that is folded.
"""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine, ChannelClip
from tests.surgery.folds import folded

SHAPES = {1: (9, 4), 2: (9, 8, 4), 3: (5, 6, 5, 4)}


def linear_layers():
    """Every kind of linear layer, padding, stride, dilation, groups and size of kernel."""
    yield "dense", 2, lambda: layers.Dense(3, name="linear")
    yield "dense without bias", 1, lambda: layers.Dense(3, use_bias=False, name="linear")
    yield "einsum", 2, lambda: layers.EinsumDense("abcd,de->abce", (None, None, 6), name="linear")
    yield (
        "einsum with heads",
        1,
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="linear"),
    )
    yield (
        "einsum on the right",
        2,
        lambda: layers.EinsumDense("...d,de->...e", 6, bias_axes="e", name="linear"),
    )
    yield (
        "einsum over two axes",
        2,
        lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e", name="linear"),
    )
    for rank in SHAPES:
        for size in (1, 2, 3, 4):
            for padding in ("valid", "same", *(["causal"] if rank == 1 else [])):
                for more in (
                    {},
                    {"strides": 2},
                    {"dilation_rate": 2},
                    {"groups": 2, "use_bias": False},
                ):
                    if rank == 3 and size == 4:
                        continue
                    settings = {"kernel_size": size, "padding": padding, "name": "linear", **more}
                    label = f"conv{rank}d {size} {padding} {more or ''}"
                    yield (
                        label,
                        rank,
                        lambda rank=rank, settings=settings: getattr(layers, f"Conv{rank}D")(
                            6, **settings
                        ),
                    )
                    if padding == "causal" or "groups" in more or rank == 3 or size == 4:
                        continue
                    yield (
                        f"depthwise {label}",
                        rank,
                        lambda rank=rank, settings=settings: getattr(
                            layers, f"DepthwiseConv{rank}D"
                        )(depth_multiplier=2, **settings),
                    )
                    yield (
                        f"separable {label}",
                        rank,
                        lambda rank=rank, settings=settings: getattr(
                            layers, f"SeparableConv{rank}D"
                        )(5, depth_multiplier=2, use_bias=False, **settings),
                    )
            for padding in ("valid", "same"):
                settings = {
                    "kernel_size": size,
                    "padding": padding,
                    "strides": 2 if size > 1 else 1,
                    "name": "linear",
                }
                if size < 4:
                    label = f"transposed {rank}d {size} {padding}"
                    yield (
                        label,
                        rank,
                        lambda rank=rank, settings=settings: getattr(
                            layers, f"Conv{rank}DTranspose"
                        )(3, **settings),
                    )


LINEAR = [pytest.param(rank, make, id=label) for label, rank, make in linear_layers()]


@pytest.mark.parametrize("rank, make", LINEAR)
def test_every_linear_layer_behind_an_ic(rank, make):
    """On the raw input nothing can move up: the whole map goes into the layer, or its scale alone,
    with the shift as an addition.
    """
    layer = make()
    new = folded(
        keras.Sequential([keras.Input(SHAPES[rank]), keras_ic.IC(name="ic"), layer]), negative=0.3
    )
    padded = getattr(layer, "padding", "valid") != "valid" and np.prod(layer.kernel_size) > 1
    if padded or "Transpose" in type(layer).__name__:
        assert [type(made) for made in new.layers] == [
            ChannelAffine,
            type(layer),
        ] and not new.layers[0].use_scale
    else:
        assert [type(made) for made in new.layers] == [type(layer)]


@pytest.mark.parametrize(
    "rank, make", [case for case in LINEAR if re.search(r"conv.d [234] same|transposed", case.id)]
)
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_shifts_move_into_the_relu_before(rank, make, activation):
    """Convolution, ReLU, IC, convolution: nothing is left but the ReLU with bounds of its own."""
    first = getattr(layers, f"Conv{rank}D")(4, 1, activation=activation, name="first")
    new = folded(
        keras.Sequential([keras.Input(SHAPES[rank]), first, keras_ic.IC(name="ic"), make()]),
        negative=0.3,
    )
    assert [type(made) for made in new.layers] == [type(first), ChannelClip, type(make())]
    assert (
        new.layers[1].use_upper == (activation == "relu6")
        and new.layers[0].activation is keras.activations.linear
    )
