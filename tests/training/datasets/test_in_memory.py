import numpy as np
import pytest

from keras_ic.training import TrainingConfig, datasets
from keras_ic.training.datasets import Shard
from tests.training.datasets.reading import batches


def is_prepared(name):
    import tensorflow_datasets as tfds

    return tfds.builder(name).is_prepared()


def test_digits():
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert (x_train.shape, x_test.shape) == ((1438, 8, 8, 1), (359, 8, 8, 1))
    assert (y_train.shape, y_test.shape) == ((1438,), (359,))
    assert {x.dtype.name for x in (x_train, x_test)} == {"float32"}
    assert {y.dtype.name for y in (y_train, y_test)} == {"int64"}
    assert x_train.min() == 0
    assert x_train.max() == 1
    train, test = np.bincount(y_train), np.bincount(y_test)
    assert len(train) == datasets.CLASSES["digits"]
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.005)
    # The split is this one for ever.
    assert y_test[:12].tolist() == [3, 7, 3, 9, 0, 8, 7, 0, 8, 0, 3, 3]


def test_digits_are_split_not_lost():
    from sklearn.datasets import load_digits

    (x_train, y_train), (x_test, y_test) = datasets.digits(seed=3, test_fraction=0.5)
    rows = np.concatenate([x_train, x_test]).reshape(1797, 64) * 16
    together = np.column_stack([rows, np.concatenate([y_train, y_test])])
    original = np.column_stack([load_digits().data, load_digits().target])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(original, axis=0))
    assert not np.array_equal(y_test[:50], datasets.digits(seed=4, test_fraction=0.5)[1][1][:50])


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
        datasets.digits(**arguments)


@pytest.mark.slow(reason="a small set is read in faster tests")
def test_real_cifar100():
    if not is_prepared("cifar100"):
        pytest.skip("CIFAR-100 is not prepared on this machine")
    (x_train, y_train), (x_test, y_test) = datasets.cifar100()
    assert (x_train.shape, x_test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    assert (x_train.dtype, y_train.dtype) == ("uint8", "int64")
    np.testing.assert_array_equal(np.bincount(y_train), np.full(100, 500))
    np.testing.assert_array_equal(np.bincount(y_test), np.full(100, 100))


def test_another_name():
    with pytest.raises(ValueError, match=r"did you mean 'cifar10'\? Received: name='cifar1O'"):
        datasets.load("cifar1O")


def small(**values):
    return TrainingConfig(**{"data": "digits", "batch": 32, "train_size": 70, **values})


@pytest.mark.tensorflow_only
def test_what_it_says_of_itself():
    images = datasets.make_dataset(small())
    assert isinstance(images, datasets.InMemoryImages)
    assert images.shape == (8, 8, 1) and images.classes == 10 and images.steps == 3
    assert images.sizes == {"train": 70, "validation": 359}
    assert images.is_standardized and not images.is_one_hot


@pytest.mark.tensorflow_only
def test_smoothing_needs_rows_of_a_one_hot_matrix():
    images = datasets.make_dataset(small(label_smoothing=0.1))
    _, rows = batches(images.train(0, Shard()), 1)[0]
    _, labels = batches(datasets.make_dataset(small()).train(0, Shard()), 1)[0]
    np.testing.assert_array_equal(rows, np.eye(10)[labels])


@pytest.mark.tensorflow_only
def test_a_training_goes_on_at_any_step():
    images = datasets.make_dataset(small())
    whole = batches(images.train(0, Shard()), 6)
    for ours, theirs in zip(batches(images.train(4, Shard()), 2), whole[4:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.tensorflow_only
def test_replicas_get_the_parts_of_a_batch_one_after_another():
    """The last batch of an epoch, of 6 images, too."""
    images = datasets.make_dataset(small())
    for step in (0, 2):
        (whole,) = batches(images.train(step, Shard()), 1)
        parts = [batches(images.train(step, Shard(worker, 2, 2)), 2) for worker in range(2)]
        for index, values in enumerate(whole):
            joined = [part[index] for worker in parts for part in worker]
            np.testing.assert_array_equal(np.concatenate(joined), values)
            assert max(map(len, joined)) - min(map(len, joined)) <= 1


@pytest.mark.tensorflow_only
def test_every_image_is_judged_on_once_on_all_replicas():
    images = datasets.make_dataset(small())
    whole = np.concatenate([labels for _, labels in batches(images.validation(Shard()))])
    found = []
    for worker in range(2):
        shard = Shard(worker, 2, 2)
        parts = batches(images.validation(shard))
        assert len(parts) == 2 * images.validation_steps(shard)
        found += [labels[weights > 0] for _, labels, weights in parts]
    assert sorted(np.concatenate(found)) == sorted(whole)


@pytest.mark.tensorflow_only
def test_a_part_of_the_training_images_is_judged_on():
    whole, part, other = (
        datasets.make_dataset(small(**values))
        for values in ({}, {"validation": 0.2}, {"validation": 0.2, "seed": 7})
    )
    assert part.sizes == {"train": 56, "validation": 14}
    found = {image.tobytes() for image in np.concatenate([part.x, part.judged[0]])}
    assert found == {image.tobytes() for image in whole.x}
    np.testing.assert_array_equal(part.judged[0], other.judged[0])
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match="`validation` must leave"):
            datasets.make_dataset(small(validation=share))


@pytest.mark.tensorflow_only
def test_more_images_than_there_are():
    with pytest.raises(ValueError, match=r"must be at most 1438, .*Received: train_size=1439"):
        datasets.make_dataset(TrainingConfig(data="digits", train_size=1439))
