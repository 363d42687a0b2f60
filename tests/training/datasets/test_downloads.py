import json
import pathlib
import sys
import threading
import types

import numpy as np
import pytest

from keras_ic.training import datasets
from keras_ic.training.datasets import downloads


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


@pytest.fixture
def no_network(monkeypatch):
    """A proxy that refuses connections stands for every network."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.mark.parametrize(
    ("module", "call", "command"),
    [
        ("sklearn.datasets", datasets.digits, 'pip install "keras-ic[data]"'),
        ("tensorflow_datasets", datasets.cifar10, 'pip install "keras-ic[data]"'),
        ("tensorflow", datasets.cifar100, 'pip install "keras-ic[tensorflow]"'),
        (
            "tensorflow",
            lambda: datasets.training_dataset(np.zeros((1, 8, 8, 1)), [0], 1, 0, 1),
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
        datasets.cifar10()


@pytest.mark.parametrize("load", [datasets.cifar10, datasets.cifar100])
def test_reads_what_was_prepared(tmp_path, no_network, load):
    written = make_set(
        load.__name__, tmp_path, datasets.CLASSES[load.__name__], {"train": 30, "test": 7}
    )
    for (x, y), (x_written, y_written) in zip(load(tmp_path), written, strict=True):
        assert (x.dtype, y.dtype) == ("uint8", "int64")
        np.testing.assert_array_equal(x, x_written)
        np.testing.assert_array_equal(y, y_written)


def test_finds_the_folder_of_the_environment(tmp_path, no_network, monkeypatch):
    make_set("cifar10", tmp_path, 10, {"train": 3, "test": 2})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert datasets.cifar10()[0][0].shape == (3, 32, 32, 3)


def check_missing(error, *parts):
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_missing_and_no_network(tmp_path, no_network):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(datasets.MissingDataError) as error:
        datasets.cifar10(tmp_path)
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
        with pytest.raises(datasets.MissingDataError, match="cannot be downloaded now"):
            datasets.cifar100(tmp_path)
        assert len(asked) == 1
    finally:
        over.set()


def test_an_archive_put_there_needs_no_network(tmp_path, no_network):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"not the real one")
    with pytest.raises(datasets.MissingDataError) as error:
        datasets.cifar10(tmp_path)
    check_missing(error, "NonMatchingChecksumError", f"`tfds build cifar10 --data_dir {tmp_path}`")


def test_damaged(tmp_path, no_network):
    make_set("cifar10", tmp_path, 10, {"train": 30, "test": 7})
    (records,) = tmp_path.glob("cifar10/*/*train*")
    records.write_bytes(records.read_bytes()[:-100])
    with pytest.raises(datasets.MissingDataError) as error:
        datasets.cifar10(tmp_path)
    check_missing(error, "DataLossError", "delete the folder cifar10", str(tmp_path))
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    info.write_text('{"name": ')
    with pytest.raises(datasets.MissingDataError) as error:
        datasets.cifar10(tmp_path)
    check_missing(error, "ParseError", "delete the folder cifar10", str(tmp_path))
