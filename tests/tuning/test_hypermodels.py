import keras
import keras_tuner
import numpy as np
import pytest

from keras_ic.training.rate_schedule import ic_layers
from keras_ic.tuning import ICHyperModel, ICResNetHyperModel, SearchSpace, hypermodels

X = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32")
Y = np.arange(16) % 4
CONSTANT = SearchSpace(schedules="constant")


def dense(compiled=True):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(6, name="one"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Activation("relu", name="relu"),
            keras.layers.Dense(5, activation="relu", name="two"),
            keras.layers.Dense(4, name="three"),
        ]
    )
    if compiled:
        model.compile(
            "sgd",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            run_eagerly=True,  # there is more to compile than to compute
        )
    return model


def parameters(**values):
    hp = keras_tuner.HyperParameters()
    hp.values.update(values)
    return hp


TUNERS = {
    "random": lambda model, **own: keras_tuner.RandomSearch(
        model, "val_accuracy", max_trials=2, **own
    ),
    "hyperband": lambda model, **own: keras_tuner.Hyperband(
        model, "val_accuracy", max_epochs=2, factor=2, **own
    ),
}


@pytest.mark.parametrize("name", TUNERS)
def test_works_with_the_tuners_as_they_are(tmp_path, name):
    space = SearchSpace(orders=("usual", "ic"), rate_schedules="constant", schedules="constant")
    tuner = TUNERS[name](ICHyperModel(dense(), space), directory=tmp_path, seed=3)
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    trials = tuner.oracle.trials.values()
    assert len(trials) >= 2 and {trial.status for trial in trials} == {"COMPLETED"}
    for trial in trials:
        names = {name for name in trial.hyperparameters.values if not name.startswith("tuner/")}
        if trial.hyperparameters.values["order"] == "conv-bn-relu":
            assert names == {"order", "learning_rate"}
        else:
            of_depth = {
                "uniform": {"rate"},
                "linear": {"rate_first", "rate_last"},
            }
            assert (
                names
                == {"order", "learning_rate", "rate_depth"}
                | of_depth[trial.hyperparameters.values["rate_depth"]]
            )
    assert isinstance(tuner.get_best_models()[0], keras.Model)


def test_the_rates_are_where_they_belong():
    hypermodel = ICHyperModel(dense(), CONSTANT)
    layers = ic_layers(
        hypermodel.build(parameters(rate_depth="linear", rate_first=0.0, rate_last=0.2))
    )
    assert [(layer.name, layer.rate) for layer in layers] == [("two_ic", 0.0), ("three_ic", 0.2)]
    assert [
        layer.rate
        for layer in ic_layers(hypermodel.build(parameters(rate_depth="uniform", rate=0.0)))
    ] == [0, 0]
    stages = parameters(rate_depth="stages", rate_1=0.1, rate_2=0.2, rate_3=0.3)
    model = ICResNetHyperModel(8, CONSTANT, classes=4, input_shape=(8, 8, 1), seed=1).build(stages)
    assert [model.get_layer(f"stage{stage}_block1_conv1_ic").rate for stage in (1, 2, 3)] == [
        0.1,
        0.2,
        0.3,
    ]
    assert model.output_shape == (None, 4)


def test_the_learning_rate_and_its_decay():
    hypermodel = ICHyperModel(dense(), steps=100)
    schedule = hypermodel.build(
        parameters(learning_rate=0.01, schedule="one-cycle")
    ).optimizer.learning_rate
    assert isinstance(
        hypermodel.build(
            parameters(learning_rate=0.01, schedule="one-cycle")
        ).optimizer._learning_rate,
        keras.optimizers.schedules.CosineDecay,
    )
    assert float(schedule) == pytest.approx(0.01 / 25)
    model = hypermodel.build(parameters(learning_rate=0.01, schedule="constant"))
    assert isinstance(model.optimizer, keras.optimizers.SGD) and float(
        model.optimizer.learning_rate
    ) == pytest.approx(0.01)
    with_schedule = dense()
    with_schedule.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1.0, 10)), "mse"
    )
    model = ICHyperModel(with_schedule, steps=100).build(
        parameters(learning_rate=0.01, schedule="constant")
    )
    assert (
        float(model.optimizer.learning_rate) == pytest.approx(0.01)
        and float(with_schedule.optimizer.learning_rate) == 1
    )
    kept = ICHyperModel(dense(), SearchSpace(learning_rate=None, schedules="constant"))
    hp = parameters()
    assert (
        float(kept.build(hp).optimizer.learning_rate) == pytest.approx(0.01)
        and "learning_rate" not in hp.values
    )


def test_the_rates_follow_their_schedule_while_fitting():
    hypermodel = ICHyperModel(dense(), CONSTANT)
    hp = parameters(rate_depth="uniform", rate=0.2, rate_schedule="anneal")
    model = hypermodel.build(hp)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(ic_layers(model)[0].rate)
    )
    hypermodel.fit(hp, model, X, Y, epochs=3, callbacks=[watch], verbose=0)
    np.testing.assert_allclose(seen, [0.2, 0.2 * 6 / 9, 0.2 * 3 / 9])
    constant = parameters(rate_depth="uniform", rate=0.2, rate_schedule="constant")
    seen.clear()
    hypermodel.fit(constant, model, X, Y, epochs=2, callbacks=[watch], verbose=0)
    assert len(set(seen)) == 1


def test_the_given_model_stays_as_it_is_and_is_a_candidate():
    given = dense()
    before = given.get_weights()
    for weights, kept in (("fresh", False), ("preserve", True)):
        hypermodel = ICHyperModel(
            given, SearchSpace(orders=("usual", "ic"), schedules="constant"), weights=weights
        )
        usual, rewritten = (
            hypermodel.build(parameters(order=order, rate_depth="uniform"))
            for order in ("conv-bn-relu", "relu-ic-conv")
        )
        assert usual is not given and not ic_layers(usual) and len(ic_layers(rewritten)) == 2
        for model in (usual, rewritten):
            model.fit(X, Y, epochs=1, verbose=0)
        fresh = hypermodel.build(parameters(order="conv-bn-relu"))
        assert np.array_equal(fresh.get_layer("one").kernel, given.get_layer("one").kernel) == kept
    for one, two in zip(before, given.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_functions_that_build_models():
    # Its argument has a default, and is not `hp`.
    assert len(ic_layers(ICHyperModel(dense, CONSTANT).build(parameters()))) == 2
    built = []

    def build(hp):
        built.append(hp.Choice("units", [3, 5]))
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(built[-1]),
                keras.layers.Dense(4),
            ]
        )
        model.compile("adam", "mse")
        return model

    hp = parameters(units=5)
    ICHyperModel(build, CONSTANT).build(hp)
    assert built == [5] and "rate" in hp.values


def flat():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    model.compile("adam", "mse")
    return model


def test_works_with_its_defaults(tmp_path):
    """The learning rate decays over the steps of `fit`."""
    hypermodel = ICHyperModel(dense)
    hp = parameters(schedule="cosine", learning_rate=0.01)
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, X, Y, epochs=3, batch_size=6, verbose=0)
    assert model.optimizer.iterations == 3 * 3
    schedule = model.optimizer._learning_rate
    np.testing.assert_allclose(
        [schedule(0), schedule(4.5), schedule(9)], [0.01, 0.005, 0], atol=1e-9
    )
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=1, directory=tmp_path)
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    assert tuner.oracle.get_best_trials()[0].status == "COMPLETED"


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[:4], Y[:4]


@pytest.mark.parametrize(
    ("arguments", "values", "steps"),
    [
        ((X, Y), {}, 1),
        ((X, Y, 3), {}, 6),
        ((X, Y), {"batch_size": 3, "validation_split": 0.3}, 4),
        ((), {"x": {"image": X}, "y": Y, "batch_size": 4}, 4),
        ((iter([]),), {"steps_per_epoch": 7}, 7),
        ((Batches(),), {}, 4),
    ],
)
def test_steps_of_an_epoch(arguments, values, steps):
    assert hypermodels._steps_of_an_epoch(*arguments, **values) == steps


def test_data_of_unknown_length_need_steps():
    hypermodel = ICHyperModel(dense(), SearchSpace(schedules="cosine"))
    hp = parameters()
    model = hypermodel.build(hp)
    with pytest.raises(ValueError, match=r"give `steps` to the hypermodel. Received: x=<list_iter"):
        hypermodel.fit(hp, model, iter([(X, Y)]), epochs=1, verbose=0)


def test_names_that_the_function_asks_for_are_its_own():
    def build(hp):
        model = dense()
        model.optimizer.learning_rate = hp.Float("learning_rate", 1e-6, 1e-5)
        return model

    hp = parameters()
    hypermodel = ICHyperModel(build, CONSTANT)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the search space has, too; .* Received: learning_r"):
            hypermodel.build(hp)
    kept = ICHyperModel(build, SearchSpace(schedules="constant", learning_rate=None))
    rate = float(kept.build(parameters(learning_rate=5e-6)).optimizer.learning_rate)
    assert rate == pytest.approx(5e-6)


def test_conditions_of_the_function_are_searched(tmp_path):
    """Keras Tuner learns of all branches of the function."""

    def build(hp):
        kind = hp.Choice("kind", ["narrow", "wide"])
        with hp.conditional_scope("kind", ["wide"]):
            if kind == "wide":
                hp.Choice("factor", [2, 3])
        return dense()

    space = SearchSpace(rate=0.1, schedules="constant", rate_schedules="constant")
    tuner = keras_tuner.GridSearch(ICHyperModel(build, space), "loss", directory=tmp_path)
    names = {each.name for each in tuner.oracle.get_space().space}
    assert names == {"kind", "factor", "learning_rate"}


def test_only_what_sets_a_layer_is_searched():
    """The model has two IC layers."""
    hp = parameters()
    ICHyperModel(dense(), SearchSpace(depths="stages", schedules="constant")).build(hp)
    names = {each.name for each in hp.space}
    assert names == {"rate_1", "rate_2", "rate_schedule", "learning_rate"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ICHyperModel(flat(), CONSTANT),
            r"The model has no weight layers .* Received: model 'sequential",
        ),
        (
            lambda: ICHyperModel(flat, CONSTANT).build(parameters()),
            r"The model has no weight layers",
        ),
        (
            lambda: ICHyperModel(dense(False), CONSTANT),
            r"The model must be compiled.* Received: model 'sequential.*', not compiled",
        ),
        (
            lambda: ICHyperModel(lambda: 3, CONSTANT).build(parameters()),
            r"The function must return a Keras model. Received: 3",
        ),
        (
            lambda: ICHyperModel("resnet20", CONSTANT),
            r"`model_or_builder` must be a model, or a function .* Received: 'resnet20'",
        ),
        (
            lambda: ICHyperModel(dense(), CONSTANT, rate=0.1),
            r"give their range in `space`. Received: rate=0.1",
        ),
        (lambda: ICHyperModel(dense(), CONSTANT, weights="old"), r"Received: weights='old'"),
        (
            lambda: ICHyperModel(dense(), SearchSpace(orders="conv-relu-ic"), steps=3),
            r"Received: orders=\('conv-relu-ic',\)",
        ),
        (
            lambda: ICHyperModel(dense(), steps=0),
            r"`steps` must be an integer above 0. Received: steps=0",
        ),
        (
            lambda: ICHyperModel(dense(), {"rate": 0.1}),
            r"`space` must be a `SearchSpace` or None. Received: space=\{'rate': 0.1\}",
        ),
        (lambda: ICResNetHyperModel(21, CONSTANT), r"Received: depth=21"),
        (
            lambda: ICResNetHyperModel(8, SearchSpace(learning_rate=None), steps=1),
            r"Received: learning_rate=None",
        ),
        (
            lambda: ICResNetHyperModel(8, CONSTANT, optimizer="adamw"),
            r"Received: optimizer='adamw'",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
