import keras
import numpy as np
import pytest
from keras import layers

import keras_ic
from keras_ic.layers import ChannelAffine
from keras_ic.surgery.inspection import inspect
from keras_ic.surgery.layer_traits import inside_time
from keras_ic.surgery.placement import READS_INPUT
from tests.surgery import models
from tests.surgery.models import reasons, rows


def test_advice_holds():
    """What a reason advises works, and nothing is advised that does not."""
    kinds = [
        (layers.LSTM(3, name="it"), (5, 4), "float32"),
        (layers.PReLU(name="it"), (5, 4), "float32"),
        (layers.Embedding(9, 3, name="it"), (5,), "int32"),
        (layers.Embedding(9, 3, name="it"), (5,), "float32"),
        (ChannelAffine(name="it"), (5, 4), "float32"),
    ]
    for layer, shape, dtype in kinds:
        for stem in ([], [layers.Dense(4)]) if dtype == "float32" else ([],):
            layer = type(layer).from_config(layer.get_config())
            stack = [keras.Input(shape, dtype=dtype), *stem, layer, layers.Dense(2)]
            model = keras.Sequential(stack)
            told = reasons(keras_ic.plan(model))["it"]
            if "weight_layers=" in told:
                policy = {"skip_first": False} if "skip_first=False" in told else {}
                plan = keras_ic.plan(model, weight_layers=(type(layer),), **policy)
                assert "it" in rows(plan, "ic")
            assert ("weight_layers=" in told) == isinstance(layer, layers.LSTM)


def test_states_of_recurrent_layers_are_no_data():
    inputs = keras.Input((5, 4))
    x = layers.Dense(3)(inputs)
    states = [layers.Dense(3)(x[:, 0]) for _ in range(2)]
    for call in (
        lambda lstm: lstm(x, states),
        lambda lstm: lstm(x, initial_state=states),
        lambda lstm: lstm(initial_state=states, sequences=x),
    ):
        model = keras.Model(inputs, call(layers.LSTM(3, name="lstm")))
        plan = keras_ic.plan(model, weight_layers=(layers.LSTM,))
        assert [change.name for change in plan.changes if change.layer == "lstm"] == ["lstm_ic"]


def test_a_network_in_ic_form_is_refused_in_one_line():
    stack = [layers.Dense(4, "relu") for _ in range(30)]
    model = keras_ic.rewrite(keras.Sequential([keras.Input((4,)), *stack]))
    with pytest.raises(ValueError, match="in IC form already") as raised:
        keras_ic.rewrite(model)
    assert len(str(raised.value)) < 500


def test_the_plan_refuses_what_rewrite_refuses():
    class Closed(keras.Model):
        def __init__(self, units):
            super().__init__(name="closed")
            self.dense = layers.Dense(units)

        def call(self, inputs):
            return self.dense(inputs)

        def get_config(self):
            raise NotImplementedError("no configuration")

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Closed(3)(layers.Dense(4)(inputs))))
    for function in (keras_ic.plan, keras_ic.rewrite, keras_ic.plan_fold, keras_ic.fold):
        with pytest.raises(ValueError, match=r"'closed' cannot be rebuilt.*Closed"):
            function(model)


def test_rate_of_the_site():
    sites = []
    plan = keras_ic.plan(
        models.small_convolutional(), lambda site: sites.append(site) or 0.02 + 0.08 * site.depth
    )
    assert [(site.layer.name, site.index, site.depth) for site in sites] == [
        ("conv2", 0, 0.0),
        ("dense", 1, 1.0),
    ]
    assert [change.rate for change in plan.changes if change.kind == "ic"] == pytest.approx(
        [0.02, 0.1]
    )


def test_raw_input_reaches_through_preprocessing_padding_and_nested_models():
    inner = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(3, 1, name="inner1"),
            layers.Conv2D(3, 1, name="inner2"),
        ],
        name="inner",
    )
    x = inputs = keras.Input((8, 8, 3))
    for layer in (
        layers.Rescaling(2.0),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.ZeroPadding2D(),
        inner,
        layers.Dense(2, name="end"),
    ):
        x = layer(x)
    plan = keras_ic.plan(keras.Model(inputs, x))
    assert reasons(plan)["inner/inner1"] == f"no IC: {READS_INPUT}"
    assert list(rows(plan, "ic")) == ["inner/inner2", "end"]
    assert list(rows(keras_ic.plan(keras.Model(inputs, x), skip_first=False), "ic")) == [
        "inner/inner1",
        "inner/inner2",
        "end",
    ]


def test_an_embedding_is_no_raw_input_and_integers_get_no_ic():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 4, name="embedding"),
            layers.Dense(3, name="dense"),
        ]
    )
    plan = keras_ic.plan(model)
    assert list(rows(plan, "ic")) == ["dense"] and "as indices" in reasons(plan)["embedding"]
    direct = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Dense(3, name="dense")])
    assert (
        reasons(keras_ic.plan(direct, skip_first=False))["dense"]
        == "no IC: its input is of dtype int32"
    )


def test_share_and_not_share():
    inputs = keras.Input((6,))
    x = layers.Dense(4, activation="relu", name="stem")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, name="one")(x), layers.Dense(2, name="two")(x)])
    assert rows(keras_ic.plan(model), "ic") == {
        "one": "IC one_ic (rate 0.05) before it",
        "two": "shares one_ic",
    }
    assert [change.name for change in keras_ic.plan(model, share=False).changes] == [
        "one_ic",
        "two_ic",
    ]


def test_existing_ic_is_not_doubled():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, name="stem"),
            keras_ic.IC(),
            layers.Dropout(0.1),
            layers.Dense(3, name="end"),
        ]
    )
    plan = keras_ic.plan(model)
    assert plan.changes == [] and reasons(plan)["end"] == "no IC: has an IC layer already"


def test_skip_and_further_weight_layers_and_wrappers():
    x = inputs = keras.Input((5, 4))
    for layer in (
        layers.Dense(4, name="stem"),
        layers.TimeDistributed(layers.Dense(3), name="timed"),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"),
        layers.LayerNormalization(name="norm"),
        layers.MultiHeadAttention(1, 2, name="attention"),
    ):
        x = layer(x, x) if layer.name == "attention" else layer(x)
    model = keras.Model(inputs, x)
    plan = keras_ic.plan(model)
    assert list(rows(plan, "ic")) == ["timed"]
    assert all(
        "not known as a weight layer" in reasons(plan)[name] for name in ("both", "attention")
    )
    assert reasons(plan)["norm"] == "stays: only BatchNormalization leaves"
    plan = keras_ic.plan(
        model,
        weight_layers=(layers.LSTM, layers.MultiHeadAttention),
        skip=lambda layer: layer.name == "timed",
    )
    assert (
        list(rows(plan, "ic")) == ["both", "attention"]
        and reasons(plan)["timed"] == "no IC: skip= says so"
    )


def test_normalizations_that_stay_say_why():
    class Other(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return -super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    x = layers.BatchNormalization(name="always")(x, training=True)
    model = keras.Model(inputs, layers.Dense(2)(Other(name="other")(x)))
    told = reasons(keras_ic.plan(model, weights="preserve"))
    assert "training=True" in told["always"] and "Other computes something else" in told["other"]
    assert (
        reasons(keras_ic.plan(models.small_convolutional(), normalization="keep"))["bn1"]
        == 'stays, as normalization="keep" says'
    )


def test_batch_normalization_hidden_in_a_composite_layer_is_told():
    hidden = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()])
    model = keras.Sequential(
        [keras.Input((None, 4)), layers.Dense(4), layers.TimeDistributed(hidden, name="timed")]
    )
    assert "1 BatchNormalization" in reasons(keras_ic.plan(model))["timed"]


def test_bias_leave_and_repair_through_pooling():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.Conv2D(2, 1, use_bias=False, name="end")(layers.ReLU()(x)))
    assert list(rows(keras_ic.plan(model), "bias")) == ["conv"]
    assert rows(keras_ic.plan(model, bias="leave"), "bias") == {}


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(
    "linear",
    [
        lambda: layers.Conv2D(4, 3, use_bias=False),
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False),
    ],
    ids=["Conv2D", "DepthwiseConv2D"],
)
def test_bias_repair_inside_time_distributed(linear, timed):
    wrap = (
        layers.TimeDistributed
        if timed
        else (
            lambda layer, name=None: type(layer).from_config({**layer.get_config(), "name": name})
        )
    )
    stack = [
        wrap(linear(), name="one"),
        wrap(layers.BatchNormalization(), name="bn"),
        layers.ReLU(),
        layers.Dense(2, name="end"),
    ]
    model = keras.Sequential([keras.Input((3, 8, 8, 2) if timed else (8, 8, 2)), *stack])
    plan = keras_ic.plan(model)
    assert rows(plan, "bias") == {"one": "gets a bias"}
    new = keras_ic.rewrite(model, weights="copy")
    assert new.count_params() == plan.parameters[1] and inside_time(new.get_layer("one")).use_bias


def test_an_ic_inside_time_distributed_is_not_doubled():
    stack = [
        layers.Dense(4, name="stem"),
        layers.TimeDistributed(keras_ic.IC(0.1), name="timed"),
        layers.Dense(3, name="end"),
    ]
    model = keras.Sequential([keras.Input((5, 6)), *stack])
    plan = keras_ic.plan(model)
    assert plan.changes == [] and reasons(plan) == {
        "stem": f"no IC: {READS_INPUT}",
        "end": "no IC: has an IC layer already",
    }
    assert [row.state for row in inspect(model) if row.layer == "timed"] == [
        "rate 0.1, statistics as initialized"
    ]
    with pytest.raises(ValueError, match="is in IC form already"):
        keras_ic.rewrite(model)


def permutations():
    yield "Permute", layers.Permute((3, 1, 2)), 1
    yield (
        "Permute twice",
        keras.Sequential([layers.Permute((3, 1, 2)), layers.Permute((2, 3, 1))]),
        -1,
    )
    yield "Transpose", lambda x: keras.ops.transpose(x, (0, 1, -1, 2)), 2
    yield "Transpose of none", lambda x: keras.ops.transpose(keras.ops.transpose(x)), -1


@pytest.mark.parametrize(
    "move, axis", [pytest.param(*case[1:], id=case[0]) for case in permutations()]
)
def test_the_channel_axis_is_followed_through_a_permutation(move, axis):
    inputs = keras.Input((8, 7, 3))
    move = type(move).from_config(move.get_config()) if isinstance(move, layers.Layer) else move
    x = move(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="end")(layers.Flatten()(x)))
    (ic,) = models.ics(keras_ic.rewrite(model))
    assert (ic.axis, ic.gamma.shape) == (axis, (4,))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"weights": "old"}, "'fresh', 'copy', 'preserve'. Received: weights='old'"),
        ({"normalization": "drop"}, "'remove', 'keep'. Received"),
        ({"bias": True}, "'repair', 'leave'. Received: bias=True"),
        ({"share": "yes"}, "True or False. Received: share='yes'"),
        ({"skip_first": 2}, "True or False. Received: skip_first=2"),
        ({"skip": "conv1"}, "function of a layer.*Received: skip='conv1'"),
        ({"weight_layers": ("Dense",)}, "subclasses of `keras.layers.Layer`. Received"),
        ({"rate": 1.0}, r"\[0, 1\).*Received: rate=1.0"),
        ({"rate": "high"}, "Received: rate='high'"),
        ({"rate": lambda site: "high"}, r"rate\(site\) at layer 'conv2'.*Received.*'high'"),
        ({"rate": lambda site: np.nan}, "Received.*nan"),
    ],
)
def test_bad_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        keras_ic.plan(models.small_convolutional(), **policy)


def test_models_that_cannot_be_read():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    class Custom(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((3,))
    for model, message in (
        (
            Subclassed(),
            r"keras.Model\(inputs, outputs\).*Received: model 'mine' \(of type Subclassed\)",
        ),
        (Custom(inputs, layers.Dense(2)(inputs), name="custom"), "Received: model 'custom'"),
        (keras.Sequential([layers.Dense(2)], name="raw"), "not built.*Received: model 'raw'"),
        (
            keras.Sequential([keras.Input((3,)), layers.ReLU()], name="empty"),
            "no weight layers.*Received: model 'empty'",
        ),
        (layers.Dense(2), "must be a keras.Model. Received"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_ic.plan(model)
