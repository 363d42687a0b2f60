"""Image sets that tensorflow-datasets prepares, and what to say where it cannot."""

import contextlib
import importlib
import os
import pathlib
import shlex
import threading
from typing import Any

from keras_ic.utils.lazy_imports import needed
from keras_ic.utils.validation import checked_path

SECONDS_FOR_AN_ANSWER = 5


class MissingDataError(RuntimeError):
    """An image set that is neither on this machine nor to be downloaded now. Its text is one line
    that says how to get it.
    """


def from_tfds(name: str, data_dir: Any) -> Any:
    """The training and test sets of tensorflow-datasets, as arrays, downloaded and prepared first
    if they are not in its folder.
    """
    needed("tensorflow", "tensorflow", "tensorflow")
    tfds = needed("tensorflow_datasets", "tensorflow-datasets", "data")
    # Tensorflow-datasets logs what went wrong with its import, and hides it.
    if not hasattr(tfds, "builder"):
        raise ImportError(
            "tensorflow-datasets is installed and cannot be imported whole; its message above says"
            " why. Where this is of protobuf's versions, as with TensorFlow 2.18, run `pip install"
            f" 'tensorflow-metadata<1.18'`. Received: tensorflow-datasets {tfds.__version__}"
        )
    data_dir = os.path.expanduser(
        (data_dir is not None and checked_path("data_dir", data_dir))
        or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            _download(tfds, builder, data_dir)
        # Without shuffle_files, each image has its place, always.
        wanted = {"batch_size": -1, "shuffle_files": False, "as_supervised": True}
        return tuple(
            tfds.as_numpy(builder.as_dataset(split=split, **wanted)) for split in ("train", "test")
        )
    except MissingDataError:
        raise
    # A damaged file, a full disk, a wrong checksum: each of the libraries beneath has errors of its
    # own.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MissingDataError(
            f"{name} in {data_dir} could not be read or made ({reason}); delete the folder {name}"
            f" there and run `{_command(name, data_dir)}`."
        ) from error


def _command(name, data_dir):
    return f"tfds build {name} --data_dir {shlex.quote(data_dir)}"


def _download(tfds, builder, data_dir):
    """Downloads and prepares, or fails within seconds: tensorflow-datasets alone would try for
    minutes where there is no network.
    """
    archives = {info.filename: url for url, info in builder.url_infos.items()}
    # tensorflow-datasets takes an archive that was put into downloads/manual, or downloaded before,
    # from there.
    present = [
        path.name
        for path in pathlib.Path(data_dir, "downloads").glob("**/*")
        if ".tmp." not in path.name
    ]
    urls = [
        url
        for archive, url in archives.items()
        if not any(archive.partition(".")[0] in name for name in present)
    ]
    if not _answer(urls):
        raise MissingDataError(
            f"{builder.name} is not in {data_dir} and cannot be downloaded now; run"
            f" `{_command(builder.name, data_dir)}` where a network is and copy the folder"
            f" {builder.name} it makes, or put {' and '.join(archives)} into"
            f" {os.path.join(data_dir, 'downloads', 'manual')}."
        )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _answer(urls):
    """Whether the servers answer. In a thread, since looking up a name has no time limit where no
    name server answers.
    """
    # What tensorflow-datasets downloads with, so that proxies and certificates are the same.
    requests = importlib.import_module("requests")
    answers: list[bool] = []

    def ask():
        with contextlib.suppress(requests.RequestException):
            answers.extend(
                requests.head(url, timeout=SECONDS_FOR_AN_ANSWER).status_code < 500 for url in urls
            )

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_AN_ANSWER)
    return len(answers) == len(urls) and all(answers)
