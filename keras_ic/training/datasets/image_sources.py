"""Where images are: which files hold how many, with which classes. Nothing of an image is read
here.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import struct
from typing import Any

from keras_ic.training.config import IN_MEMORY
from keras_ic.training.datasets.downloads import MissingDataError
from keras_ic.utils.lazy_imports import tensorflow as tf
from keras_ic.utils.validation import did_you_mean

SPLITS = {"train": ("train",), "validation": ("validation", "val")}
IMAGES = (".jpeg", ".jpg")
FRAME = 16  # bytes that a TFRecord adds to each record: its length, and two check sums
HEADER = 12
IMAGENET = 1000


@dataclasses.dataclass(frozen=True)
class Source:
    """The images of a split.

    Attributes:
        files: List of paths. TFRecord shards, or single images.
        counts: List of integers, the records of each file; 1 for an image.
        labels: List of integers, the class of each single image; None for shards, which hold the
            classes themselves.
        classes: List of strings, the names of the classes, in shards those of the file
            label.labels.txt, one a line; without it, 1000 numbers.
        features: Tuple of the names of the image and the class in a shard's records, and the number
            of the first class there; None for single images.
        cut_off: List of the paths of shards that end within a record.
    """

    files: list[str]
    counts: list[int]
    labels: list[int] | None
    classes: list[str]
    features: tuple[str, str, int] | None
    cut_off: list[str] = dataclasses.field(default_factory=list)

    @property
    def examples(self) -> int:
        """All images."""
        return sum(self.counts)


def find_images(data: str, split: str, data_dir: Any = None) -> Source:
    """Finds the images of a split, whichever of three layouts they have.

    - A set of tensorflow-datasets, `imagenet2012` or another with images and labels, in its
      prepared form.
    - A folder of TFRecord shards named `train-00000-of-01024` and `validation-...`, or in folders
      `train` and `validation`, whose records have the features `image` and `label` (classes from
      0), or `image/encoded` and `image/class/label` (classes from 1), as TensorFlow's own scripts
      write them.
    - A folder with folders `train` and `val` (or `validation`), in each a folder for every class,
      such as ILSVRC's synsets, with its images, JPEG files.

    Args:
        data: The name of a set of tensorflow-datasets, or the path of a folder.
        split: `"train"` or `"validation"`.
        data_dir: Path of the folder of tensorflow-datasets. Defaults to `None`: the environment's
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        A `Source`.

    Raises:
        MissingDataError: If the set, the folder or the split is not there, or is empty; it says
            what was looked for.
        ValueError: If records have other features, or the classes of the two splits are not the
            same.

    Example:

    ```python
    import pathlib, tempfile
    from keras_ic.training import datasets

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "train/dog/2.jpg"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).touch()
    source = datasets.find_images(str(folder), "train")
    assert source.examples == 3 and source.classes == ["cat", "dog"] and source.labels == [0, 1, 1]
    ```
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be 'train' or 'validation'. Received: split={split!r}")
    folder = pathlib.Path(data).expanduser()
    if not folder.is_dir():
        return _of_tfds(data, split, data_dir)
    if (folder / "dataset_info.json").exists():
        return _prepared(folder, split)
    return _of_shards(folder, split) or _of_images(folder, split)


def _of_tfds(name: str, split: str, data_dir: Any) -> Source:
    root = pathlib.Path(
        data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    ).expanduser()
    versions = sorted(
        (root / name).glob("*/dataset_info.json"),
        key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()],
    )
    if not versions:
        missing = f"There is no folder {name!r}, and no set of that name in {root}"
        known = (*IN_MEMORY, "imagenet2012")
        nearest = did_you_mean(name, known)
        if name not in known and os.sep not in name and nearest != ".":
            raise MissingDataError(f"{missing}{nearest} Received: data={name!r}")
        archives = (
            "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into its downloads/manual and "
            if name == "imagenet2012"
            else ""
        )
        raise MissingDataError(
            f"{missing}; {archives}run `tfds build {name} --data_dir {root}`, or give the folder"
            f" that holds train and val. Received: data={name!r}"
        )
    return _prepared(versions[-1].parent, split)


def _prepared(folder: pathlib.Path, split: str) -> Source:
    """A set as tensorflow-datasets leaves it, read without the library, which takes seconds to
    import.
    """
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        names = [entry["name"] for entry in info["splits"]]
        found = next((entry for entry in info["splits"] if entry["name"] in SPLITS[split]), None)
        counts = [] if found is None else [int(count) for count in found["shardLengths"]]
        size = 0 if found is None else int(found["numBytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "The dataset_info.json of this set is damaged, or of another kind"
            f" ({type(error).__name__}: {error}); prepare the set again. Received: {str(folder)!r}"
        ) from None
    if found is None:
        raise MissingDataError(
            f"This set has no split {split}, but {', '.join(names)}. Received: {str(folder)!r}"
        )
    name, total = (
        f"{info['name']}-{found['name']}.{info.get('fileFormat', 'tfrecord')}",
        len(counts),
    )
    files = [folder / f"{name}-{shard:05d}-of-{total:05d}" for shard in range(total)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise MissingDataError(
            f"{len(missing)} of {total} shards of this set are not there, the first is"
            f" {missing[0]}. Received: {str(folder)!r}"
        )
    source = Source(
        [str(file) for file in files], counts, None, _classes(folder), ("image", "label", 0)
    )
    # Whole files have exactly the bytes of the records and their frames; only where they have not,
    # is each walked through.
    if sum(file.stat().st_size for file in files) != size + FRAME * sum(counts):
        walked = _walk(source.files)
        source = dataclasses.replace(
            source,
            cut_off=[
                file for file, (_, whole) in zip(source.files, walked, strict=True) if not whole
            ],
        )
    return source


def _of_shards(folder: pathlib.Path, split: str) -> Source | None:
    files: list[pathlib.Path] = []
    for name in SPLITS[split]:
        files += [
            *folder.glob(f"{name}-*-of-*"),
            *folder.glob(f"{name}*.tfrecord*"),
            *(folder / name).glob("*-of-*"),
            *(folder / name).glob("*.tfrecord*"),
        ]
    files = sorted({path for path in files if path.is_file()})
    if not files:
        return None
    names = [str(file) for file in files]
    walked = _walk(names)
    cut_off = [name for name, (_, whole) in zip(names, walked, strict=True) if not whole]
    first = next((name for name, (count, _) in zip(names, walked, strict=True) if count), None)
    if first is None:
        raise MissingDataError(
            f"The shards of the split {split} hold no record. Received: {str(folder)!r}"
        )
    # The lost record of a shard that is cut off counts too, so that it is seen.
    counts = [count + (not whole) for count, whole in walked]
    return Source(names, counts, None, _classes(folder), _features(first), cut_off)


def _classes(folder: pathlib.Path) -> list[str]:
    """The names that stand beside shards; without them, the numbers of ImageNet's 1000 classes."""
    labels = folder / "label.labels.txt"
    return (
        labels.read_text(encoding="utf-8").splitlines()
        if labels.exists()
        else [str(label) for label in range(IMAGENET)]
    )


def _walk(files: list[str]) -> list[tuple[int, bool]]:
    """The whole records of each TFRecord file, and whether nothing follows the last. The headers
    alone are read.
    """

    def walk(path):
        count, size = 0, os.path.getsize(path)
        with open(path, "rb") as file:
            position = 0
            while position + HEADER <= size:
                file.seek(position)
                (length,) = struct.unpack("<Q", file.read(8))
                if position + FRAME + length > size:
                    break
                position += FRAME + length
                count += 1
        return count, position == size

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(walk, files))


def _features(path: str) -> tuple[str, str, int]:
    record = next(iter(tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()))
    try:
        names = set(tf.train.Example.FromString(record).features.feature)
    except Exception:  # What is no Example makes the parser raise an error of its own library.
        names = set()
    for image, label, first in (("image", "label", 0), ("image/encoded", "image/class/label", 1)):
        if {image, label} <= names:
            return image, label, first
    raise ValueError(
        "The records need the features image and label, or image/encoded and image/class/label;"
        f" these have {', '.join(sorted(names)) or 'none'}. Received: {path!r}"
    )


def _of_images(folder: pathlib.Path, split: str) -> Source:
    root = next((folder / name for name in SPLITS[split] if (folder / name).is_dir()), None)
    if root is None:
        looked = ", ".join(SPLITS[split])
        raise MissingDataError(
            f"This folder has no split {split}: neither shards {looked}-*-of-* nor a folder"
            f" {looked}. Received: {str(folder)!r}"
        )
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())
    files, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((root / name).iterdir()):
            if path.suffix.lower() in IMAGES:
                files.append(str(path))
                labels.append(label)
    if not files:
        raise MissingDataError(
            "There is no JPEG file in this folder's classes; each class needs a folder of its own."
            f" Received: {str(root)!r}"
        )
    return Source(files, [1] * len(files), labels, classes, None)
