import json
import os
from pathlib import Path

import pytest

from keras_ic.training import datasets
from tests.training.conftest import jpeg, write_shard

pytestmark = pytest.mark.tensorflow_only  # it writes and reads the images
SMALL = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / "imagenet2012"


def test_shards(shards):
    source = datasets.find_images(shards, "train")
    assert source.counts == [16, 14, 17, 15] and source.examples == 62
    assert (
        source.classes == ["red", "green", "blue", "yellow"]
        and source.features == ("image", "label", 0)
        and not source.cut_off
    )
    assert datasets.find_images(str(shards), "validation").counts == [9, 10]


def test_shards_as_tensorflow_writes_them(tmp_path):
    (tmp_path / "train").mkdir()
    write_shard(
        tmp_path / "train" / "train-00000-of-00001",
        [(jpeg(2, 0), 2)],
        ("image/encoded", "image/class/label"),
        1,
    )
    source = datasets.find_images(tmp_path, "train")
    assert (
        source.features == ("image/encoded", "image/class/label", 1) and len(source.classes) == 1000
    )
    _, classes, _ = next(iter(datasets.training_images(source, 1, 32)))
    assert int(classes[0].numpy().argmax()) == 2


def test_folders_of_images(folders):
    source = datasets.find_images(folders, "train")
    assert (
        source.examples == 32
        and source.classes == ["n01", "n02", "n03", "n04"]
        and source.labels == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    )
    assert datasets.find_images(folders, "validation").examples == 12


def prepared_set(shards, root, count=None):
    """The shards as tensorflow-datasets would have left them."""
    folder = root / "tiny" / "1.2.0"
    folder.mkdir(parents=True)
    sizes = []
    for path in sorted(shards.glob("train-*")):
        (folder / path.name.replace("train", "tiny-train.tfrecord")).write_bytes(path.read_bytes())
        sizes.append(path.stat().st_size)
    counts = [16, 14, 17, 15]
    splits = [
        {
            "name": "train",
            "shardLengths": list(map(str, counts)),
            "numBytes": str(sum(sizes) - 16 * sum(counts)),
        }
    ]
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": "tiny", "fileFormat": "tfrecord", "splits": splits})
    )
    return folder


def test_a_prepared_set(shards, tmp_path):
    folder = prepared_set(shards, tmp_path)
    (tmp_path / "tiny" / "1.10.0").mkdir()
    (tmp_path / "tiny" / "1.10.0" / "dataset_info.json").write_bytes(
        (folder / "dataset_info.json").read_bytes()
    )
    # The newest version counts.
    with pytest.raises(
        datasets.MissingDataError, match=r"4 of 4 shards of this set are not there.*1\.10\.0"
    ):
        datasets.find_images("tiny", "train", tmp_path)
    source = datasets.find_images(folder, "train")
    assert source.counts == [16, 14, 17, 15] and not source.cut_off
    with pytest.raises(datasets.MissingDataError, match="no split validation, but train"):
        datasets.find_images(folder, "validation")
    cut = Path(source.files[2])
    cut.write_bytes(cut.read_bytes()[:-1000])
    assert datasets.find_images(folder, "train").cut_off == [str(cut)]


def test_what_is_not_there(tmp_path, shards):
    for data, match in (
        ("imagenet2012", "put ILSVRC2012_img_train.tar"),
        ("imagnet", "did you mean 'imagenet2012'"),
        ("cifar", "did you mean 'cifar10'"),
        ("/none/imagenet", "or give the folder that holds train and val"),
        ("oxford_flowers102", "run `tfds build oxford_flowers102 --data_dir .*`, or give"),
    ):
        with pytest.raises(datasets.MissingDataError, match=f"{match}.*Received: data='{data}'"):
            datasets.find_images(data, "train", tmp_path)
    with pytest.raises(
        datasets.MissingDataError,
        match=r"no split train: neither shards .* nor a folder train\. Received: ",
    ):
        datasets.find_images(tmp_path, "train")
    (tmp_path / "train" / "n01").mkdir(parents=True)
    with pytest.raises(datasets.MissingDataError, match="no JPEG file in this folder's classes"):
        datasets.find_images(tmp_path, "train")
    with pytest.raises(ValueError, match="Received: split='test'"):
        datasets.find_images(shards, "test")
    write_shard(tmp_path / "train-00000-of-00001", [(b"", 0)], ("picture", "class"))
    with pytest.raises(ValueError, match=r"these have class, picture\. Received: "):
        datasets.find_images(tmp_path, "train")
    (tmp_path / "train-00000-of-00001").write_bytes(b"")
    with pytest.raises(datasets.MissingDataError, match="hold no record"):
        datasets.find_images(tmp_path, "train")


def test_names_of_classes_may_have_spaces(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "label.labels.txt").unlink()
    (tmp_path / "label.labels.txt").write_text("pink primrose\nenglish marigold\nrose\niris\n")
    assert datasets.find_images(tmp_path, "train").classes == [
        "pink primrose",
        "english marigold",
        "rose",
        "iris",
    ]


def test_a_description_that_is_none(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"name": "x", "splits": [{"name": "train"}]}')
    with pytest.raises(
        ValueError, match=r"damaged, or of another kind \(KeyError: 'shardLengths'\).*Received: "
    ):
        datasets.find_images(tmp_path, "train")


@pytest.mark.skipif(
    not SMALL.is_dir(), reason="imagenet2012 is not in the folder of tensorflow-datasets"
)
def test_the_real_set():
    source = datasets.find_images("imagenet2012", "validation")
    assert (
        len(source.classes) == 1000
        and source.classes[0] == "n01440764"
        and source.examples > 0
        and not source.cut_off
    )
    images, classes, weights = next(iter(datasets.validation_images(source, 16, 64)))
    assert images.shape == (16, 64, 64, 3) and weights.numpy().all() and classes.numpy().sum() == 16
