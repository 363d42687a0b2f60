import pytest

from keras_ic.training import TrainingConfig, datasets
from keras_ic.training.workers import Workers

pytestmark = pytest.mark.tensorflow_only


def check(strategy, images):
    config = TrainingConfig(data="digits", model="small", batch=32, train_size=images)
    Workers(config, strategy).check(datasets.make_dataset(config))


def test_fewer_images_in_the_last_batch_than_replicas(strategy):
    check(strategy, 67)  # of which the last batch has three
    check(None, 65)
    with pytest.raises(ValueError, match=r"an image for each replica.*Received: 1 images for 2"):
        check(strategy, 65)


def test_where_a_run_takes_place(strategy):
    config = TrainingConfig(data="digits", model="small")
    place = Workers(config, strategy).place
    assert (place["replicas"], place["workers"], place["devices"]) == (2, 1, {"cpu": 2})
    assert Workers(config, None).place["devices"] == {"cpu": 1} and len(place["hosts"]) == 1
