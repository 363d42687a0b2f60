import importlib.util
import json
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ic import data, files

pytestmark = pytest.mark.tensorflow_only
SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "cifar.py"
SMALL = ["--model", "resnet8", "--batch", "32", "--rate", "0.1"]

# A fake set of 70 training images, so that the last batch is a small one, and the script run on it twice: once through, once until it is killed.
KILLED = f"""
import os, runpy, signal, sys
import numpy as np
from keras_ic import data, files

def fake(data_dir):
    random = np.random.RandomState(0)
    return tuple((random.randint(0, 256, (n, 32, 32, 3)).astype("uint8"), random.randint(0, 10, n)) for n in (70, 20))

def run(*arguments):
    sys.argv = [{str(SCRIPT)!r}, *{SMALL!r}, *arguments]
    try:
        runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, end.code

data.cifar10 = fake
what, through, broken = sys.argv[1:]
if what == "through":
    run("--out", through, "--epochs", "2")
    save, saved = files.save_model, []

    def save_once(model, path):
        if saved:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(save(model, path))

    files.save_model = save_once
run("--out", broken, "--epochs", "2")
"""


def fake(data_dir=None):
    random = np.random.RandomState(0)
    return tuple((random.randint(0, 256, (n, 32, 32, 3)).astype("uint8"), random.randint(0, 10, n)) for n in (40, 20))


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("cifar", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(data, "cifar10", fake)
    return script


def read(folder):
    """The head of a record, and its epochs without what no two runs share."""
    head, *epochs = (json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines())
    return head, [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in epochs]


def weights(path):
    model = files.load_model(path)
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables + model.optimizer.variables]


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("cifar.py: ")
    return err


def test_killed_and_resumed_is_bit_for_bit_unbroken(tmp_path):
    through, broken = tmp_path / "through", tmp_path / "broken"

    def run(what):
        return subprocess.run([sys.executable, "-c", KILLED, what, str(through), str(broken)], capture_output=True, text=True)

    first = run("through")
    assert first.returncode == -signal.SIGKILL, first.stderr
    # Killed after the line of the second epoch and before its checkpoint.
    assert [epoch["epoch"] for epoch in read(broken)[1]] == [1, 2]
    assert sorted(path.name for path in broken.iterdir()) == ["checkpoint.keras", "record.jsonl"]
    second = run("go on")
    assert second.returncode == 0, second.stderr
    assert "epochs 2 to 2" in second.stdout
    assert read(broken) == read(through)
    for one, two in zip(weights(broken / "model.keras"), weights(through / "model.keras"), strict=True):
        np.testing.assert_array_equal(one, two)
    assert sorted(path.name for path in broken.iterdir()) == ["model.keras", "record.jsonl"]


def test_what_a_run_leaves(script, tmp_path, capsys):
    arguments = [*SMALL, "--epochs", "2", "--seed", "7", "--order", "ic", "--out", str(tmp_path / "run")]
    assert script.main(arguments) == 0
    head, epochs = read(tmp_path / "run")
    assert head["seed"] == 7
    expected = {"dataset": "cifar10", "model": "resnet8", "order": "relu-ic-conv", "rate": 0.1, "epochs": 2, "batch": 32, "train_size": None}
    assert expected.items() <= head["configuration"].items()
    assert head["versions"]["keras"] == keras.__version__
    assert {"keras_ic", "tensorflow", "numpy", "python"} <= set(head["versions"])
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    lines = (tmp_path / "run" / "record.jsonl").read_text().splitlines()
    assert list(json.loads(lines[1])) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]

    model = files.load_model(tmp_path / "run" / "model.keras")
    (x, _), (x_test, y_test) = fake()
    mean, std = data.channel_statistics(x)
    loss, accuracy = model.evaluate((x_test - mean) / std, y_test, verbose=0)
    np.testing.assert_allclose([loss, accuracy], [epochs[-1]["val_loss"], epochs[-1]["val_accuracy"]], rtol=1e-5)
    assert f"Test accuracy {accuracy:.4f}" in capsys.readouterr().out

    # Finished is finished, by either name of the order; another configuration is refused.
    assert script.main([*arguments, "--order", "relu-ic-conv", "--data-dir", "elsewhere"]) == 0
    assert (tmp_path / "run" / "record.jsonl").read_text().splitlines() == lines
    capsys.readouterr()
    assert script.main([*arguments, "--rate", "0.2", "--seed", "8"]) == 2
    error = one_line(capsys)
    assert "holds another run (rate 0.1 there, 0.2 here, seed 7 there, 8 here)" in error
    assert error.endswith(f"Received: --out {tmp_path / 'run'}\n")
    assert (tmp_path / "run" / "record.jsonl").read_text().splitlines() == lines
    (tmp_path / "run" / "record.jsonl").write_text("\n".join(lines[:2]))
    assert script.main(arguments) == 2
    assert "record.jsonl is damaged" in one_line(capsys)
    (tmp_path / "run" / "record.jsonl").write_text("\n".join(lines[:2]))
    assert script.main(arguments) == 2
    assert "record.jsonl is damaged" in one_line(capsys)


def test_the_schedule_follows_the_epochs(script, tmp_path):
    for epochs in (1, 10):
        arguments = script.parse([*SMALL, "--batch", "4", "--epochs", str(epochs), "--out", str(tmp_path / str(epochs))])
        _, model, done, inputs = script.prepare(arguments)
        assert done == 0
        assert inputs["steps_per_epoch"] == 10
        schedule = model.optimizer._learning_rate
        rates = [float(schedule(step)) for step in range(10 * epochs)]
        np.testing.assert_allclose(rates, np.repeat([1e-3, 1e-4, 1e-5, 1e-6], np.array([4, 2, 2, 2]) * epochs), rtol=1e-6)


def test_interrupted_then_damaged(script, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    arguments = [*SMALL, "--epochs", "2", "--order", "usual", "--out", str(run)]
    save, saved = files.save_model, []

    def save_then_stop(model, path):
        saved.append(save(model, path))
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_model", save_then_stop)
    assert script.main(arguments) == 75
    assert "the same command goes on" in capsys.readouterr().err
    record = (run / "record.jsonl").read_text()

    # Half a file, with the record sound; then the record wrong, with the file sound. Neither changes anything.
    content = (run / "checkpoint.keras").read_bytes()
    (run / "checkpoint.keras").write_bytes(content[: len(content) // 2])
    assert script.main(arguments) == 2
    assert "This is no whole Keras model file" in one_line(capsys)
    assert (run / "record.jsonl").read_text() == record
    (run / "checkpoint.keras").write_bytes(content)
    for damaged in ("", "{", record.splitlines()[0], record[:-20], record.replace('"epoch": 1', '"epoch": 2')):
        (run / "record.jsonl").write_text(damaged)
        assert script.main(arguments) == 2
        assert "record.jsonl is damaged" in one_line(capsys)
        assert (run / "record.jsonl").read_text() == damaged
    (run / "record.jsonl").unlink()
    assert script.main(arguments) == 2
    assert "not the record of its run" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be an integer above 0. Received: '0'"),
        (["--batch", "x"], "argument --batch: must be an integer above 0. Received: 'x'"),
        (["--model", "vgg16"], "argument --model: must be resnet and its depth, as resnet20, resnet56 or resnet164. Received: 'vgg16'"),
        (["--order", "relu"], "argument --order: invalid choice: 'relu'"),
        (["--sed", "1"], "unrecognized arguments: --sed 1"),
    ],
)
def test_bad_arguments(script, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    assert end.value.code == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet21"], "Received: depth=21"),
        (["--rate", "1"], "Received: rate=1.0"),
        (["--seed", "-1"], "Received: seed=-1"),
        (["--train-size", "41"], "--train-size must be at most 40, the number of training images. Received: --train-size 41"),
    ],
)
def test_arguments_that_the_library_refuses(script, capsys, tmp_path, arguments, message):
    assert script.main([*SMALL, "--out", str(tmp_path / "run"), *arguments]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()  # so that the right arguments find no trace of the wrong ones


def test_missing_data(script, capsys, tmp_path, monkeypatch):
    def missing(data_dir):
        raise data.MissingDataError(f"cifar100 is not in {data_dir}")

    monkeypatch.setattr(data, "cifar100", missing)
    assert script.main(["--dataset", "cifar100", "--data-dir", "there", "--out", str(tmp_path / "run")]) == 2
    assert one_line(capsys) == "cifar.py: cifar100 is not in there\n"
    assert not (tmp_path / "run").exists()


def test_out_that_is_no_folder(script, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert script.main([*SMALL, "--out", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in one_line(capsys)


def test_real_cifar10(script, monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    if not tfds.builder("cifar10").is_prepared():
        pytest.skip("CIFAR-10 is not prepared on this machine")
    monkeypatch.undo()
    train, (x_test, y_test) = data.cifar10()
    assert (train[0].shape, x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert np.bincount(train[1]).tolist() == [5000] * 10
    monkeypatch.setattr(data, "cifar10", lambda data_dir: (train, (x_test[:1000], y_test[:1000])))
    monkeypatch.chdir(tmp_path)
    assert script.main(["--model", "resnet8", "--train-size", "128", "--epochs", "1"]) == 0
    (run,) = (tmp_path / "runs" / "cifar").iterdir()
    assert run.name == "cifar10-resnet8-relu-ic-conv-0.05-seed0-1epochs"
    (epoch,) = read(run)[1]
    assert 0.02 < epoch["val_accuracy"] < 0.4  # after two steps
    assert files.load_model(run / "model.keras").output_shape == (None, 10)
