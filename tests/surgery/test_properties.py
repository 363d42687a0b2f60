"""What must hold for every model, on random ones. `IC_EXAMPLES=5000` draws that many."""

import json
import os
import tempfile

import keras
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import keras_ic
from tests.surgery import graphs, models

EXAMPLES = int(os.environ.get("IC_EXAMPLES", "15"))


@st.composite
def policies(draw):
    return {
        "share": draw(st.booleans()),
        "skip_first": draw(st.booleans()),
        "bias": draw(st.sampled_from(["repair", "repair", "leave"])),
        "normalization": draw(st.sampled_from(["remove", "remove", "remove", "keep"])),
    }


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 100,
    database=None,
    # Every example builds several models: shrinking would take longer than reading the one that
    # fails.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data(), policy=policies(), seed=st.integers(0, 9))
def test_every_model(data, policy, seed):
    model = models.randomize(graphs.draw_model(data.draw), seed)
    unchanged = models.Unchanged(model)
    plan = keras_ic.plan(model, weights="preserve", **policy)
    models.assert_every_weight_layer_is_accounted_for(model, plan)
    if not plan.changes:
        with pytest.raises(ValueError, match="nothing to rewrite"):
            keras_ic.rewrite(model, weights="preserve", **policy)
        return
    new = keras_ic.rewrite(model, weights="preserve", **policy)
    unchanged.check()

    models.assert_same_function(model, new)
    assert type(new) is type(model) and new.name == model.name and new.compiled == model.compiled
    assert new.count_params() == plan.parameters[1]
    assert {layer.name for layer in models.ics(new)} == {
        change.name for change in plan.changes if change.kind == "ic"
    }
    if policy["normalization"] == "remove" and not policy["skip_first"]:
        assert not models.batch_normalizations(new)

    again = keras_ic.rewrite(model, weights="preserve", **policy)
    assert json.dumps(again.get_config(), default=str) == json.dumps(new.get_config(), default=str)
    assert json.dumps(plan.to_dict()) == json.dumps(
        keras_ic.plan(model, weights="preserve", **policy).to_dict()
    )
    assert keras_ic.plan(new, weights="preserve", **policy).changes == []
    with pytest.raises(ValueError, match="nothing to rewrite"):
        keras_ic.rewrite(new, weights="preserve", **policy)

    if seed % 2:
        with tempfile.TemporaryDirectory() as folder:
            models.assert_saves_and_loads(new, folder)
    trainable = {layer.name: layer.trainable for layer in model.layers}
    kept = {layer.name: layer.trainable for layer in new.layers if layer.name in trainable}
    assert kept == {name: trainable[name] for name in kept}
    if models.ics(new) and seed % 3 == 0:
        keras_ic.calibrate(new, models.sample(new, batch=8), batch_size=4, verbose=0)
        models.assert_same_function(model, new)
    keras.backend.clear_session(free_memory=False)
