"""Each recipe exports a folded network that computes the same in its own runtime, where that is
installed.
"""

import keras
import pytest

import keras_ic
from tests.scripts import script
from tests.surgery import models

TOOLS = {
    "saved_model": ["tensorflow"],
    "litert": ["ai_edge_litert"],
    "onnx": ["onnxruntime", "tf2onnx"],
    "openvino": ["openvino"],
    "int8": [],
}


@pytest.fixture(scope="module")
def recipes():
    return script("examples/deploy.py")


@pytest.fixture(scope="module")
def model():
    """The paper's smallest network: bounds of ReLUs, additions of shifts, and layers that took all
    up.
    """
    made = keras_ic.applications.ResNet(8, order="ic", seed=0, input_shape=(16, 16, 3))
    keras_ic.recalibrate(made, models.sample(made, batch=8), verbose=0)
    return made


@pytest.mark.tensorflow_only
@pytest.mark.filterwarnings("ignore")  # Of the converters.
@pytest.mark.parametrize("name", TOOLS)
def test_recipe(recipes, model, name, tmp_path, capsys):
    for tool in TOOLS[name]:
        pytest.importorskip(tool)
    results = recipes.deploy(model, tmp_path, [name])
    assert results["folded"] <= 1e-5
    assert results[name] <= (recipes.QUANTIZED_TOLERANCE if name == "int8" else recipes.TOLERANCE)
    folded = keras.models.load_model(tmp_path / "model.keras")
    assert not models.ics(folded) and len(list(tmp_path.iterdir())) >= 2
    assert f"{name}: {tmp_path}" in capsys.readouterr().out


def test_what_is_not_installed_or_not_offered_is_left_out_in_one_line(
    recipes, model, tmp_path, capsys, monkeypatch
):
    def missing(model, x, folder):
        raise ImportError("no module named 'runtime'")

    monkeypatch.setitem(recipes.FORMATS, "onnx", missing)
    monkeypatch.setitem(recipes.BACKENDS, "litert", ())
    results = recipes.deploy(model, tmp_path, ["onnx", "litert"])
    assert (
        results["onnx"] == "left out: no module named 'runtime'"
        and "does not export" in results["litert"]
    )
    _, onnx, litert = capsys.readouterr().out.splitlines()
    assert (
        onnx.startswith("onnx is left out")
        and "pip install" in onnx
        and litert.startswith("litert is left out")
    )


def test_a_wrong_export_ends_in_an_error(recipes, model, tmp_path, capsys, monkeypatch):
    model.save(tmp_path / "given.keras")

    def wrong(model, x, folder):
        return folder, keras.ops.convert_to_numpy(model(x, training=False)) * 1.01

    monkeypatch.setitem(recipes.FORMATS, "onnx", wrong)
    assert (
        recipes.main(
            [str(tmp_path / "given.keras"), "--out", str(tmp_path / "out"), "--formats", "onnx"]
        )
        == 1
    )
    assert "something else than Keras: onnx" in capsys.readouterr().err
