"""Random models for property tests: branches, residuals, concatenations, shared layers, nested
models, op nodes, several inputs and outputs.
"""

import keras
from hypothesis import strategies as st
from keras import layers


class Drawer:
    """Draws one model. Tensors are images `(batch, 6, 6, channels)`, of other sizes after strides
    and padding, or vectors.
    """

    def __init__(self, draw, depth=0, prefix=""):
        self.draw = draw
        self.depth = depth
        self.prefix = prefix
        self.count = 0
        self.reusable = []  # (layer, shape it takes)

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def name(self, kind):
        self.count += 1
        return f"{self.prefix}{kind}{self.count}"

    def linear(self, shape):
        """A weight layer for inputs of this shape."""
        rank, channels = len(shape), shape[-1]
        units = self.pick(2, 3, 4)
        common = {
            "use_bias": self.pick(True, False),
            "activation": self.pick(None, None, "relu", "tanh"),
        }
        if rank == 2:
            return layers.Dense(
                units, name=self.name("dense"), kernel_regularizer=self.pick(None, "l2"), **common
            )
        kind = self.pick(
            "conv", "conv", "conv", "depthwise", "separable", "transpose", "dense", "einsum"
        )
        name = self.name(kind)
        if kind == "dense":
            return layers.Dense(units, name=name, **common)
        if kind == "einsum":
            return layers.EinsumDense(
                "abcd,de->abce",
                (*shape[1:3], units),
                bias_axes="e" if common.pop("use_bias") else None,
                name=name,
                **common,
            )
        common.update(kernel_size=self.pick(1, 2, 3), padding=self.pick("valid", "same"), name=name)
        if kind == "depthwise":
            return layers.DepthwiseConv2D(depth_multiplier=self.pick(1, 2), **common)
        if kind == "transpose":
            return layers.Conv2DTranspose(units, strides=self.pick(1, 2), **common)
        spacing = self.pick({}, {}, {"strides": 2}, {"dilation_rate": 2})
        if kind == "separable":
            return layers.SeparableConv2D(units, **common, **spacing)
        groups = self.pick(1, channels)
        return layers.Conv2D(
            units * groups if groups > 1 else units, groups=groups, **common, **spacing
        )

    def normalization(self):
        settings = self.pick(
            {}, {}, {"scale": False}, {"center": False}, {"scale": False, "center": False}
        )
        return layers.BatchNormalization(
            epsilon=self.pick(1e-3, 1e-5), name=self.name("bn"), **settings
        )

    def plain(self, rank):
        """A layer without weights that keeps the rank."""
        kinds = ["relu", "tanh", "dropout", "identity"]
        if rank == 4:
            kinds += ["pad", "pad", "crop", "max", "average", "up", "spatial"]
        kind = self.draw(st.sampled_from(kinds))
        name = self.name(kind)
        return {
            "relu": lambda: layers.ReLU(name=name),
            "tanh": lambda: layers.Activation("tanh", name=name),
            "dropout": lambda: layers.Dropout(0.3, name=name),
            "identity": lambda: layers.Activation("linear", name=name),
            "pad": lambda: layers.ZeroPadding2D(self.pick(1, ((1, 0), (0, 1))), name=name),
            "crop": lambda: layers.Cropping2D(1, name=name),
            "max": lambda: layers.MaxPooling2D(2, strides=1, padding="same", name=name),
            "average": lambda: layers.AveragePooling2D(2, padding="same", name=name),
            "up": lambda: layers.UpSampling2D(2, name=name),
            "spatial": lambda: layers.SpatialDropout2D(0.3, name=name),
        }[kind]()

    def operation(self, x):
        return self.pick(
            lambda: x + 1.0,
            lambda: x * 0.5,
            lambda: keras.ops.relu(x),
            lambda: keras.ops.tanh(x),
            lambda: x + x,
            lambda: keras.ops.maximum(x, 0.1),
        )()

    def nested(self, x):
        """A Sequential or Functional model that takes such a tensor."""
        inner = Drawer(self.draw, self.depth + 1, f"{self.prefix}n{self.count}_")
        name = self.name("nested")
        if self.pick(True, False):
            start = keras.Input(x.shape[1:], name=f"{name}_input")
            return keras.Model(
                start, inner.grow([start], self.draw(st.integers(1, 4)))[-1], name=name
            )
        stack, tensor = [keras.Input(x.shape[1:])], x
        for _ in range(self.draw(st.integers(1, 4))):
            kind = self.pick("linear", "normalization", "plain")
            made = (
                inner.linear(tensor.shape)
                if kind == "linear"
                else (
                    inner.normalization()
                    if kind == "normalization"
                    else inner.plain(len(tensor.shape))
                )
            )
            if not fits(made, tensor):
                break
            stack.append(made)
            if isinstance(made, layers.EinsumDense):
                made.build(tensor.shape)  # That of Keras 3.12 knows its output's shape only then.
            tensor = keras.KerasTensor(made.compute_output_shape(tensor.shape))
        if len(stack) == 1:
            stack.append(layers.ReLU(name=inner.name("relu")))
        return keras.Sequential(stack, name=name)

    def grow(self, tensors, steps):
        """Adds `steps` calls to the tensors."""
        tensors = list(tensors)
        for _ in range(steps):
            x = self.draw(st.sampled_from(tensors[-3:]))
            rank = len(x.shape)
            kind = self.pick(
                "linear",
                "linear",
                "linear",
                "bn",
                "bn",
                "bn",
                "plain",
                "plain",
                "op",
                "merge",
                "concat",
                "share",
                "nest",
                "down",
            )
            if kind in ("linear", "bn", "plain", "nest"):
                if kind == "nest" and self.depth >= 2:
                    continue
                layer = {
                    "linear": lambda x=x: self.linear(x.shape),
                    "bn": self.normalization,
                    "plain": lambda rank=rank: self.plain(rank),
                    "nest": lambda x=x: self.nested(x),
                }[kind]()
                if kind != "nest" and not fits(layer, x):
                    continue
                self.reusable.append((layer, x.shape))
                tensors.append(layer(x))
            elif kind == "op":
                tensors.append(self.operation(x))
            elif kind in ("merge", "concat"):
                others = [other for other in tensors if other.shape == x.shape]
                other = self.draw(st.sampled_from(others))
                if kind == "concat" and x.shape[-1] < 12:
                    tensors.append(layers.Concatenate(name=self.name("concat"))([x, other]))
                else:
                    tensors.append(
                        layers.Add(name=self.name("add"))([x, other])
                        if self.pick(True, False)
                        else x + other
                    )
            elif kind == "share":
                fitting = [layer for layer, shape in self.reusable if shape == x.shape]
                if fitting:
                    tensors.append(self.draw(st.sampled_from(fitting))(x))
            elif rank == 4:
                flat = self.pick(
                    lambda: layers.Flatten(name=self.name("flatten")),
                    lambda: layers.GlobalAveragePooling2D(name=self.name("pool")),
                )()
                tensors.append(flat(x))
        return tensors


def fits(layer, tensor):
    """Whether the layer leaves something of the tensor, and not too much."""
    if isinstance(layer, layers.EinsumDense):
        return True
    try:
        shape = layer.compute_output_shape(tensor.shape)
    except ValueError:  # A kernel larger than the image.
        return False
    return all(
        size is None or 1 <= size <= 12 or (axis == 3 and size <= 40)
        for axis, size in enumerate(shape)
    )


def draw_model(draw):
    """A Functional model with at least one weight layer."""
    drawer = Drawer(draw)
    inputs = [
        keras.Input((6, 6, draw(st.sampled_from([2, 3]))), name=f"in{number}")
        for number in range(draw(st.integers(1, 2)))
    ]
    tensors = drawer.grow(
        [layers.Conv2D(3, 1, name=f"stem{number}")(x) for number, x in enumerate(inputs)],
        draw(st.integers(3, 12)),
    )
    ends = [tensors[-1], *draw(st.lists(st.sampled_from(tensors), max_size=2))]
    ends = list({id(tensor): tensor for tensor in ends}.values())
    structure = draw(st.sampled_from(["plain", "list", "dict"]))
    given = (
        {tensor.name: tensor for tensor in inputs}
        if structure == "dict"
        else (inputs if len(inputs) > 1 or structure == "list" else inputs[0])
    )
    wanted = (
        {f"out{number}": end for number, end in enumerate(ends)}
        if structure == "dict"
        else (ends if len(ends) > 1 else ends[0])
    )
    model = keras.Model(given, wanted, name="drawn")
    for layer in draw(st.lists(st.sampled_from(model.layers), max_size=2)):
        layer.trainable = False
    if draw(st.booleans()):
        model.compile("sgd", "mse")
    return model
