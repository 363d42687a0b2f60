import numpy as np
import pytest

from keras_ic.training import datasets

SIZE = 12  # pixels a side of the small images below


def test_channel_statistics():
    x = np.random.RandomState(0).randint(0, 256, (350, 5, 6, 3)).astype("uint8")
    x[..., 2] = 7
    mean, std = datasets.channel_statistics(x)
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
    dataset = datasets.training_dataset(
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
    images, labels = collect(datasets.training_dataset(x, y, 32, 0, 1, seed=1))
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
    images, _ = collect(datasets.training_dataset(x, np.zeros(64), 64, 50, 25))
    assert set(np.unique(images)) == {0, 2}


def test_an_epoch_depends_on_seed_and_number_alone():
    import tensorflow as tf

    x, y = numbered(50)

    def epoch(**arguments):
        return collect(
            datasets.training_dataset(x, y, **{"batch_size": 8, "mean": 0, "std": 1, **arguments})
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
    images, labels = collect(datasets.training_dataset(x, y, 10, 0, 1, seed=1, epoch=2))
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
    dataset = datasets.test_dataset(x, y, 4, 1, 2)
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
        datasets.training_dataset(**{**good, **arguments})
    if set(arguments) <= set(good):
        with pytest.raises(ValueError, match=message):
            datasets.test_dataset(**{**good, **arguments})
