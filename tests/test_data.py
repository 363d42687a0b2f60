import json
import pathlib
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from keras_ic import data, downloads

SIZE = 12  # pixels a side of the small images below


def make_set(name, folder, classes, counts):
    """Writes a small set as tensorflow-datasets would have, and returns what was written."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=folder)
    where = pathlib.Path(builder.data_path)
    where.mkdir(parents=True)
    random = np.random.RandomState(0)
    written, splits = [], []
    for split, count in counts.items():
        x = random.randint(0, 256, (count, 32, 32, 3)).astype("uint8")
        y = random.randint(0, classes, count)
        records = where / f"{name}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(records)) as writer:
            for i in range(count):
                example = {"id": str(i), "image": x[i], "label": y[i], "coarse_label": 0}
                writer.write(
                    builder.info.features.serialize_example(
                        {key: example[key] for key in builder.info.features}
                    )
                )
        splits.append(
            {
                "name": split,
                "shardLengths": [str(count)],
                "numBytes": str(records.stat().st_size),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
        written.append((x, y))
    builder.info.features.save_config(where)
    info = {
        "name": name,
        "version": str(builder.version),
        "fileFormat": "tfrecord",
        "splits": splits,
    }
    (where / "dataset_info.json").write_text(json.dumps(info))
    return written


def is_prepared(name):
    import tensorflow_datasets as tfds

    return tfds.builder(name).is_prepared()


@pytest.fixture
def no_network(monkeypatch):
    """A proxy that refuses connections stands for every network."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def test_importing_it_imports_nothing_else():
    script = (
        "import json, sys, keras_ic; before = set(sys.modules); import keras_ic.data;"
        " print(json.dumps(list(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout)) <= {"keras_ic.data", "shlex"}


@pytest.mark.parametrize(
    ("module", "call", "command"),
    [
        ("sklearn.datasets", data.digits, 'pip install "keras-ic[data]"'),
        ("tensorflow_datasets", data.cifar10, 'pip install "keras-ic[data]"'),
        ("tensorflow", data.cifar100, 'pip install "keras-ic[tensorflow]"'),
        (
            "tensorflow",
            lambda: data.training_dataset(np.zeros((1, 8, 8, 1)), [0], 1, 0, 1),
            'pip install "keras-ic[tensorflow]"',
        ),
    ],
)
def test_missing_extra(monkeypatch, module, call, command):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        call()
    assert str(error.value).endswith(f"run `{command}`.")
    assert "\n" not in str(error.value)


@pytest.mark.tensorflow_only
def test_half_an_import(monkeypatch):
    half = types.ModuleType("tensorflow_datasets")
    half.__version__ = "4.9.10"
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", half)
    with pytest.raises(
        ImportError,
        match=(
            r"cannot be imported whole; .*'tensorflow-metadata<1.18'`. Received:"
            r" tensorflow-datasets 4.9.10"
        ),
    ):
        data.cifar10()


def test_digits():
    (x_train, y_train), (x_test, y_test) = data.digits()
    assert (x_train.shape, x_test.shape) == ((1438, 8, 8, 1), (359, 8, 8, 1))
    assert (y_train.shape, y_test.shape) == ((1438,), (359,))
    assert {x.dtype.name for x in (x_train, x_test)} == {"float32"}
    assert {y.dtype.name for y in (y_train, y_test)} == {"int64"}
    assert x_train.min() == 0
    assert x_train.max() == 1
    train, test = np.bincount(y_train), np.bincount(y_test)
    assert len(train) == data.CLASSES["digits"]
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.005)
    # The split is this one for ever.
    assert y_test[:12].tolist() == [3, 7, 3, 9, 0, 8, 7, 0, 8, 0, 3, 3]


def test_digits_are_split_not_lost():
    from sklearn.datasets import load_digits

    (x_train, y_train), (x_test, y_test) = data.digits(seed=3, test_fraction=0.5)
    rows = np.concatenate([x_train, x_test]).reshape(1797, 64) * 16
    together = np.column_stack([rows, np.concatenate([y_train, y_test])])
    original = np.column_stack([load_digits().data, load_digits().target])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(original, axis=0))
    assert not np.array_equal(y_test[:50], data.digits(seed=4, test_fraction=0.5)[1][1][:50])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"`seed` must be .* Received: seed=-1 \(of type int\)$"),
        (
            {"test_fraction": 0.001},
            r"`test_fraction` must leave images in both sets\. Received: test_fraction=0\.001$",
        ),
        (
            {"test_fraction": 0.999},
            r"`test_fraction` must leave images in both sets\. Received: test_fraction=0\.999$",
        ),
        (
            {"test_fraction": 0},
            (
                r"`test_fraction` must be a number above 0 and below 1\. Received: test_fraction=0"
                r" \(of type int\)$"
            ),
        ),
    ],
)
def test_digits_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.digits(**arguments)


@pytest.mark.parametrize("load", [data.cifar10, data.cifar100])
def test_reads_what_was_prepared(tmp_path, no_network, load):
    written = make_set(
        load.__name__, tmp_path, data.CLASSES[load.__name__], {"train": 30, "test": 7}
    )
    for (x, y), (x_written, y_written) in zip(load(tmp_path), written, strict=True):
        assert (x.dtype, y.dtype) == ("uint8", "int64")
        np.testing.assert_array_equal(x, x_written)
        np.testing.assert_array_equal(y, y_written)


def test_finds_the_folder_of_the_environment(tmp_path, no_network, monkeypatch):
    make_set("cifar10", tmp_path, 10, {"train": 3, "test": 2})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data.cifar10()[0][0].shape == (3, 32, 32, 3)


def check_missing(error, *parts):
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_missing_and_no_network(tmp_path, no_network):
    # Which takes its time on a busy machine, and is not what is timed.
    pytest.importorskip("tensorflow_datasets")
    start = time.perf_counter()
    with pytest.raises(data.MissingDataError) as error:
        data.cifar10(tmp_path)
    assert time.perf_counter() - start < 5
    check_missing(
        error,
        f"cifar10 is not in {tmp_path}",
        f"`tfds build cifar10 --data_dir {tmp_path}`",
        f"{tmp_path}/downloads/manual",
    )


def test_missing_and_a_network_that_swallows_everything(tmp_path, monkeypatch):
    import requests

    over, asked = threading.Event(), []

    def swallow(url, timeout):
        asked.append(url)
        over.wait(60)
        raise requests.ConnectionError

    monkeypatch.setattr(downloads, "SECONDS_FOR_AN_ANSWER", 0.2)
    monkeypatch.setattr(requests, "head", swallow)
    try:
        with pytest.raises(data.MissingDataError, match="cannot be downloaded now"):
            data.cifar100(tmp_path)
        assert len(asked) == 1
    finally:
        over.set()


def test_an_archive_put_there_needs_no_network(tmp_path, no_network):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"not the real one")
    with pytest.raises(data.MissingDataError) as error:
        data.cifar10(tmp_path)
    check_missing(error, "NonMatchingChecksumError", f"`tfds build cifar10 --data_dir {tmp_path}`")


def test_damaged(tmp_path, no_network):
    make_set("cifar10", tmp_path, 10, {"train": 30, "test": 7})
    (records,) = tmp_path.glob("cifar10/*/*train*")
    records.write_bytes(records.read_bytes()[:-100])
    with pytest.raises(data.MissingDataError) as error:
        data.cifar10(tmp_path)
    check_missing(error, "DataLossError", "delete the folder cifar10", str(tmp_path))
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    info.write_text('{"name": ')
    with pytest.raises(data.MissingDataError) as error:
        data.cifar10(tmp_path)
    check_missing(error, "ParseError", "delete the folder cifar10", str(tmp_path))


def test_real_cifar100():
    if not is_prepared("cifar100"):
        pytest.skip("CIFAR-100 is not prepared on this machine")
    start = time.perf_counter()
    (x_train, y_train), (x_test, y_test) = data.cifar100()
    assert time.perf_counter() - start < 60
    assert (x_train.shape, x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert (x_train.dtype, y_train.dtype) == ("uint8", "int64")
    np.testing.assert_array_equal(np.bincount(y_train), np.full(100, 500))
    np.testing.assert_array_equal(np.bincount(y_test), np.full(100, 100))


def test_channel_statistics():
    x = np.random.RandomState(0).randint(0, 256, (350, 5, 6, 3)).astype("uint8")
    x[..., 2] = 7
    mean, std = data.channel_statistics(x)
    assert (mean.dtype, std.dtype) == ("float32", "float32")
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[:2], x.std((0, 1, 2))[:2], rtol=1e-6)
    assert std[2] == 1


# Images in which every pixel is unlike every other pixel of its image, and none is 0: image, row
# and column in three channels, counted from 1.
def numbered(count):
    grid = np.stack(
        np.meshgrid(np.arange(count), np.arange(SIZE), np.arange(SIZE), indexing="ij"), axis=-1
    )
    return (grid + 1).astype("uint8"), np.arange(count)


def collect(dataset):
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    return np.concatenate([images for images, _ in batches]), np.concatenate(
        [labels for _, labels in batches]
    )


def test_shuffles_and_standardizes():
    x, y = numbered(10)
    dataset = data.training_dataset(
        x, y, 4, np.float32([1, 2, 3]), np.float32([1, 2, 4]), augment=False
    )
    assert [
        (images.shape[0], images.dtype.name, labels.dtype.name) for images, labels in dataset
    ] == [
        (4, "float32", "int64"),
        (4, "float32", "int64"),
        (2, "float32", "int64"),
    ]
    images, labels = collect(dataset)
    assert sorted(labels) == list(range(10))
    assert labels.tolist() != list(range(10))
    np.testing.assert_allclose(
        images, (x[labels] - np.float32([1, 2, 3])) / np.float32([1, 2, 4]), rtol=1e-6
    )


def test_flips_and_crops():
    x, y = numbered(200)
    images, labels = collect(data.training_dataset(x, y, 32, 0, 1, seed=1))
    assert sorted(labels) == list(range(200))
    flips, shifts = [], []
    for image, label in zip(images, labels, strict=True):
        padded = np.pad(x[label].astype("float32"), [(4, 4), (4, 4), (0, 0)])
        windows = {
            (top, left, flip): padded[top : top + SIZE, left : left + SIZE][:, :: -1 if flip else 1]
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
        }
        (found,) = [key for key, window in windows.items() if np.array_equal(image, window)]
        shifts.append(found[:2])
        flips.append(found[2])
    assert 70 < sum(flips) < 130
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(9))
    assert len(set(shifts)) > 50  # the two sides do not move together


def test_zeros_come_after_the_standardization():
    x = np.full((64, 8, 8, 1), 100, "uint8")
    images, _ = collect(data.training_dataset(x, np.zeros(64), 64, 50, 25))
    assert set(np.unique(images)) == {0, 2}


def test_an_epoch_depends_on_seed_and_number_alone():
    import tensorflow as tf

    x, y = numbered(50)

    def epoch(**arguments):
        return collect(
            data.training_dataset(x, y, **{"batch_size": 8, "mean": 0, "std": 1, **arguments})
        )

    first = epoch(seed=5, epoch=3)
    tf.random.set_seed(99)
    np.random.seed(99)
    for one, two in zip(first, epoch(seed=5, epoch=3), strict=True):
        np.testing.assert_array_equal(one, two)
    for other in ({"seed": 5, "epoch": 4}, {"seed": 6, "epoch": 3}, {"seed": 3, "epoch": 5}):
        images, labels = epoch(**other)
        assert labels.tolist() != first[1].tolist()
        assert not np.array_equal(images[np.argsort(labels)], first[0][np.argsort(first[1])])
    # Neither the size of the batches nor the epochs before it matter.
    for one, two in zip(first, epoch(seed=5, epoch=3, batch_size=50), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(first, epoch(seed=5, epoch=1, epochs=4), strict=True):
        assert len(two) == 200
        np.testing.assert_array_equal(one, two[100:150])


def test_order_and_augmentation_for_ever():
    """A run resumed under a later version of this package, or on another machine, goes on in this
    order.
    """
    x, y = numbered(10)
    images, labels = collect(data.training_dataset(x, y, 10, 0, 1, seed=1, epoch=2))
    assert labels.tolist() == [7, 9, 6, 4, 0, 8, 1, 2, 3, 5]
    assert images[:, 6, 6, 1:].astype(int).tolist() == [
        [6, 10],
        [11, 11],
        [7, 8],
        [11, 3],
        [5, 5],
        [10, 4],
        [8, 4],
        [5, 3],
        [7, 4],
        [7, 8],
    ]


def test_test_dataset():
    x, y = numbered(10)
    dataset = data.test_dataset(x, y, 4, 1, 2)
    assert [images.shape[0] for images, _ in dataset] == [4, 4, 2]
    images, labels = collect(dataset)
    assert images.dtype == "float32"
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(images, (x.astype("float32") - 1) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": np.zeros((5, 8, 8))},
            r"`x` must be numbers of shape .* Received: float64 of shape \(5, 8, 8\)$",
        ),
        (
            {"x": np.zeros((0, 8, 8, 3))},
            r"`x` must be .* Received: float64 of shape \(0, 8, 8, 3\)$",
        ),
        (
            {"x": np.zeros((5, 0, 8, 3))},
            r"`x` must be .* Received: float64 of shape \(5, 0, 8, 3\)$",
        ),
        (
            {"x": np.zeros((5, 8, 8, 3), bool)},
            r"`x` must be .* Received: bool of shape \(5, 8, 8, 3\)$",
        ),
        (
            {"y": np.zeros(4)},
            r"`y` must have one entry for each of the 5 images\. Received: y of shape \(4,\)$",
        ),
        ({"y": 3}, r"`y` must have .* Received: y of shape \(\)$"),
        (
            {"batch_size": 0},
            r"`batch_size` must be an integer above 0\. Received: batch_size=0 \(of type int\)$",
        ),
        (
            {"mean": [1, 2]},
            (
                r"`mean` must be a finite number, or one for each of the 3 channels\. Received:"
                r" mean=\[1.0, 2.0\]$"
            ),
        ),
        ({"mean": "a"}, r"`mean` must be a number, or one for each channel\. Received: mean='a'$"),
        ({"mean": np.nan}, r"`mean` must be .* Received: mean=nan$"),
        (
            {"std": [1, 0, 1]},
            r"`std` must be a finite number above 0, .* Received: std=\[1.0, 0.0, 1.0\]$",
        ),
        ({"augment": 1}, r"`augment` must be True or False\. Received: augment=1 \(of type int\)$"),
        (
            {"seed": -1},
            r"`seed` must be an integer of 0 or more\. Received: seed=-1 \(of type int\)$",
        ),
        ({"epoch": 0.5}, r"`epoch` must be .* Received: epoch=0.5 \(of type float\)$"),
        ({"epochs": 0}, r"`epochs` must be .* Received: epochs=0 \(of type int\)$"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"x": np.zeros((5, 8, 8, 3)), "y": np.zeros(5), "batch_size": 2, "mean": 0, "std": 1}
    with pytest.raises(ValueError, match=message):
        data.training_dataset(**{**good, **arguments})
    if set(arguments) <= set(good):
        with pytest.raises(ValueError, match=message):
            data.test_dataset(**{**good, **arguments})
