"""Folding keeps the function of every model, on random ones. `IC_EXAMPLES=5000` draws that many."""

import json
import os
import tempfile

import keras
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import keras_ic
from keras_ic.surgery import plan_fold
from keras_ic.utils.keras_internals import sublayers
from tests.surgery import graphs, models
from tests.surgery.folds import scatter

EXAMPLES = int(os.environ.get("IC_EXAMPLES", "15"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 100,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    data=st.data(),
    seed=st.integers(0, 9),
    rewritten=st.sampled_from([True, True, True, False]),
    keep=st.sampled_from(["remove", "remove", "keep"]),
    skip_first=st.booleans(),
    negative=st.sampled_from([0, 0.3]),
    zeros=st.sampled_from([0, 0, 0.2]),
)
def test_every_model(data, seed, rewritten, keep, skip_first, negative, zeros):
    model = graphs.draw_model(data.draw)
    if rewritten:
        policy = {"weights": "preserve", "normalization": keep, "skip_first": skip_first}
        if keras_ic.plan(model, **policy).changes:
            model = keras_ic.rewrite(models.randomize(model, seed), **policy)
    scatter(model, seed, negative, zeros)
    plan = plan_fold(model)
    if not plan.changes:
        models.assert_same_function(model, keras_ic.fold(model), tolerance=0)
        return
    unchanged = models.Unchanged(model)
    new = keras_ic.fold(model)
    unchanged.check()

    models.assert_same_function(model, new, tolerance=1e-5)
    assert type(new) is type(model) and new.name == model.name and new.compiled == model.compiled
    assert not models.ics(new) and not models.batch_normalizations(new)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in sublayers(new))
    assert new.count_params() == plan.parameters[1]
    assert {change.name for change in plan.changes if change.name} <= {
        layer.name for layer in sublayers(new)
    }
    assert json.dumps(plan.to_dict()) == json.dumps(plan_fold(model).to_dict())
    if seed % 3 == 0:
        with tempfile.TemporaryDirectory() as folder:
            models.assert_saves_and_loads(new, folder)
    # Another folding has nothing to do, but for affines beside one another, and keeps the function
    # too.
    again = plan_fold(new).changes
    assert all(change.kind == "affine" for change in again)
    if again:
        models.assert_same_function(model, keras_ic.fold(new), tolerance=1e-5)
    keras.backend.clear_session(free_memory=False)
