"""A model is built anew from its configuration, written as JSON: the same configuration, the same weights in name and shape."""

import json

import keras


def test_config(entry):
    model = entry.built()
    text = model.to_json()
    again = keras.models.model_from_json(text)
    assert type(again) is type(model)
    assert json.loads(again.to_json()) == json.loads(text)
    assert [(weight.name, weight.shape, weight.trainable) for weight in again.weights] == [(w.name, w.shape, w.trainable) for w in model.weights]
