"""Every model that the properties of this folder are checked on, each built by one call: see
`tests/conformance/conftest.py`.
"""

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

import keras_ic
from tests.conformance.networks import CLASSES, NETWORKS
from tests.selection import Registry
from tests.surgery import models
from tests.surgery.test_applications import SMALL

BACKEND = keras.backend.backend()
_settled: dict = {}  # what `recalibrate` gave, since it takes longer than all the rest of a build


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model of the registry.

    Attributes:
        name: String, unique.
        kind: String: "layer", "network", "rewritten", "folded" or "hypermodel".
        make: Function without arguments that builds the model, under the dtype policy and with the
            seed of the moment.
        shape: Tuple, the shape of one sample.
        level: Registry, the smallest that it is in.
        settles: Whether a new model gets moving statistics of data, so that its outputs depend on
            its inputs at every depth.
        takes_ids: Whether the inputs are integers, of which 0 is masked, and not floats.
        builds: Integer, how often it is built when leaks are looked for.
        deep: Whether it has so many layers that a training step in float32 shows the order in which
            numbers are summed.
    """

    name: str
    kind: str
    make: Callable[[], keras.Model]
    shape: tuple[int, ...]
    level: Registry = Registry.CORE
    settles: bool = True
    takes_ids: bool = False
    builds: int = 1000
    deep: bool = False

    def __str__(self):
        return self.name

    def built(self, seed=0):
        """A new model, always the same one for the same seed."""
        keras.utils.set_random_seed(seed)
        model = self.make()
        if self.settles:
            key = self.name, seed, keras.config.dtype_policy().name
            if key not in _settled:
                x = (
                    np.random.default_rng(5)
                    .normal(size=(16, *self.shape))
                    .astype(keras.config.floatx())
                )
                keras_ic.recalibrate(model, x, verbose=0)
                _settled[key] = model.get_weights()
            model.set_weights(_settled[key])
        return model

    def compiled(self, seed=0, **options):
        """A new model, ready to be trained, as a graph on TensorFlow and compiled on JAX unless the
        options say otherwise.
        """
        model = self.built(seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            loss,
            **{"jit_compile": BACKEND == "jax", **options},
        )
        return model

    def samples(self, size, seed=0):
        """`size` samples and their classes."""
        random = np.random.default_rng(seed)
        shape = (size, *self.shape)
        x = (
            random.integers(0, 7, shape)
            if self.takes_ids
            else random.normal(size=shape).astype("float32")
        )
        return x, random.integers(0, CLASSES, size)


def ics(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras_ic.IC)]


def mute(model):
    """Sets the rate of Keras's own Dropout to 0, where a property cannot hold for it."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0


def with_policy(model, policy):
    """The same model with the same weights under another dtype policy. (What a folded network is
    made of depends on its weights.)

    By its configuration, since `clone_model` keeps the dtypes of inputs, those of networks within
    it too.
    """
    config = json.dumps(keras.saving.serialize_keras_object(model)).replace(
        '"name": "float32"', f'"name": "{policy}"'
    )
    config = config.replace(
        '"dtype": "float32"', f'"dtype": "{keras.DTypePolicy(policy).compute_dtype}"'
    )
    other = keras.saving.deserialize_keras_object(json.loads(config))
    other.set_weights(model.get_weights())
    return other


def _around(shape, configuration):
    """A network of one IC layer with this configuration, between two weight layers."""
    stack = [
        keras.Input(shape),
        layers.Dense(shape[-1], "tanh"),
        keras_ic.IC(**configuration),
        layers.Flatten(),
        layers.Dense(CLASSES),
    ]
    return keras.Sequential(stack)


def _masked():
    stack = [
        keras.Input((6,), dtype="int32"),
        layers.Embedding(7, 4, mask_zero=True),
        keras_ic.IC(0.2),
        layers.GlobalAveragePooling1D(),
    ]
    return keras.Sequential([*stack, layers.Dense(CLASSES)])


CONFIGURATIONS = {
    "default": ((6,), {}),
    "rate 0": ((6,), {"rate": 0}),
    "rate 0.5, seed 7": ((6,), {"rate": 0.5, "seed": 7}),
    "no scale, no center": ((6,), {"scale": False, "center": False}),
    "momentum 0.5, epsilon 1e-5": ((6,), {"momentum": 0.5, "epsilon": 1e-5}),
    "regularizers, constraints, initializers": (
        (6,),
        {
            "gamma_initializer": keras.initializers.Constant(0.5),
            "beta_initializer": "ones",
            "gamma_regularizer": "l2",
            "beta_regularizer": keras.regularizers.L2(0.01),
            "gamma_constraint": "non_neg",
            "beta_constraint": keras.constraints.MaxNorm(2.0),
        },
    ),
    "sequences": ((5, 6), {}),
    "images": ((4, 4, 6), {}),
    "volumes": ((3, 3, 3, 4), {}),
    "axis 1": ((5, 4, 4), {"axis": 1}),
    "noise shape": ((4, 4, 6), {"rate": 0.3, "noise_shape": (None, 1, 1, None)}),
}
if BACKEND == "tensorflow":
    CONFIGURATIONS["synchronized"] = (6,), {"synchronized": True}


def _layers():
    for name, (shape, configuration) in CONFIGURATIONS.items():
        yield Entry(
            f"IC, {name}",
            "layer",
            functools.partial(_around, shape, configuration),
            shape,
            Registry.CORE if name == "default" else Registry.SMALL,
        )
    yield Entry("IC, masked", "layer", _masked, (6,), settles=False, takes_ids=True)


def _networks():
    from keras_ic.applications import VGG16, DenseNet, ResNet

    for order in ("usual", "relu-ic-conv", "ic-conv-relu", "conv-relu-ic"):
        common = {"order": order, "classes": CLASSES}
        resnet = functools.partial(ResNet, input_shape=(8, 8, 3), **common)
        dense = functools.partial(DenseNet, growth_rate=4, input_shape=(4, 4, 3), **common)
        paper = order == "relu-ic-conv"
        yield Entry(
            f"ResNet 8, {order}",
            "network",
            functools.partial(resnet, 8),
            (8, 8, 3),
            Registry.SMALL,
            builds=100,
        )
        yield Entry(
            f"ResNet 11, {order}",
            "network",
            functools.partial(resnet, 11),
            (8, 8, 3),
            Registry.COMPLETE,
            builds=100,
        )
        yield Entry(
            f"DenseNet 7, {order}",
            "network",
            functools.partial(dense, 7),
            (4, 4, 3),
            Registry.SMALL if paper else Registry.COMPLETE,
            builds=100,
        )
        yield Entry(
            f"DenseNet-BC 10, {order}",
            "network",
            functools.partial(dense, 10, bottleneck=True),
            (4, 4, 3),
            Registry.COMPLETE,
            builds=100,
        )
        yield Entry(
            f"VGG 16, {order}",
            "network",
            functools.partial(VGG16, **common),
            (32, 32, 3),
            Registry.COMPLETE,
            builds=20,
            deep=True,
        )


def _small():
    return models.randomize(models.small_convolutional())


def _residual():
    """A Functional model with a branch."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv2")(x)
    y = layers.BatchNormalization(name="bn2")(y)
    x = layers.ReLU(name="relu2")(layers.Add(name="add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return models.randomize(keras.Model(inputs, layers.Dense(CLASSES, name="dense")(x)))


def _application(name):
    size = SMALL[name]
    shape = (size, size, 3)
    network = getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None
    )
    return models.settle(
        network,
        np.random.default_rng(5).normal(0.0, 2.0, (8, *shape)).astype(keras.config.floatx()),
    )


def _rewritten(make, shape, takes_ids=False):
    model = keras_ic.rewrite(make(), weights="preserve")
    random = np.random.default_rng(5)
    x = random.integers(0, 7, (16, *shape)) if takes_ids else random.normal(size=(16, *shape))
    keras_ic.calibrate(model, x.astype(keras.config.floatx()), verbose=0)
    return model


def _surgery():
    sources = [
        ("residual network", (4, 4, 3), _residual, Registry.CORE, 100),
        ("small network", (8, 8, 3), _small, Registry.SMALL, 100),
    ]
    sources += [
        (name, (size, size, 3), functools.partial(_application, name), Registry.COMPLETE, 5)
        for name, size in SMALL.items()
    ]
    for name, shape, make, level, builds in sources:
        rewritten = functools.partial(_rewritten, make, shape)
        deep = level == Registry.COMPLETE
        common = {"level": level, "settles": False, "builds": builds, "deep": deep}
        yield Entry(f"{name}, rewritten", "rewritten", rewritten, shape, **common)
        yield Entry(
            f"{name}, folded",
            "folded",
            lambda make=rewritten: keras_ic.fold(make()),
            shape,
            **common,
        )


def _kinds():
    """The networks of `tests/conformance/networks.py`."""
    for name, network in NETWORKS.items():
        rewritten = functools.partial(
            _rewritten, functools.partial(_random, network.make), network.shape, network.takes_ids
        )
        common = {"settles": False, "takes_ids": network.takes_ids, "builds": 20}
        yield Entry(
            f"{name}, rewritten", "rewritten", rewritten, network.shape, network.level, **common
        )
        yield Entry(
            f"{name}, folded",
            "folded",
            lambda make=rewritten: keras_ic.fold(make()),
            network.shape,
            Registry.COMPLETE,
            **common,
        )


def _random(make):
    return models.randomize(make())


def _hypermodels():
    """What the tuner builds with the first value of each hyperparameter."""
    if importlib.util.find_spec("keras_tuner") is None:
        return

    def resnet():
        import keras_tuner

        from keras_ic.tuning import ICResNetHyperModel, SearchSpace

        hypermodel = ICResNetHyperModel(
            8, SearchSpace(schedules="constant"), classes=CLASSES, input_shape=(8, 8, 3)
        )
        return hypermodel.build(keras_tuner.HyperParameters())

    def rewritten():
        import keras_tuner

        from keras_ic.tuning import ICHyperModel, SearchSpace

        given = _small()
        given.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return ICHyperModel(given, SearchSpace(schedules="constant"), weights="copy").build(
            keras_tuner.HyperParameters()
        )

    yield Entry("ICResNetHyperModel", "hypermodel", resnet, (8, 8, 3), Registry.SMALL, builds=100)
    yield Entry("ICHyperModel", "hypermodel", rewritten, (8, 8, 3), Registry.SMALL, builds=100)


ENTRIES = {
    entry.name: entry
    for entry in (*_layers(), *_networks(), *_surgery(), *_kinds(), *_hypermodels())
}
