"""A model is rebuilt from its configuration, written as JSON: the same configuration, the same
weights in name and shape.
"""

import json
import re

import keras


def described(weight):
    # ConvNeXt's LayerScale leaves the name of its weight to a counter.
    return re.sub(r"^variable_\d+$", "variable", weight.name), weight.shape, weight.trainable


def test_config(entry):
    model = entry.built()
    text = model.to_json()
    again = keras.models.model_from_json(text)
    assert type(again) is type(model)
    assert json.loads(again.to_json()) == json.loads(text)
    assert [described(weight) for weight in again.weights] == [
        described(weight) for weight in model.weights
    ]
