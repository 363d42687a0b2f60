import pytest

from keras_ic.training import TrainingConfig, preset, throughput

pytestmark = pytest.mark.tensorflow_only
IMAGE_FILES = {"model": "Tiny", "image_size": 32, "batch": 8}


@pytest.mark.parametrize(
    "config",
    [
        preset("small", data="none", dtype="mixed_bfloat16", **IMAGE_FILES),
        TrainingConfig(data="digits", model="small", batch=8),
    ],
    ids=["image files", "digits"],
)
def test_images_a_second(tiny, config):
    times = throughput(config, steps=2)
    assert times["images_per_second"] == pytest.approx(8 / times["step_seconds"])


def test_on_two_replicas(tiny, strategy):
    times = throughput(preset("small", data="none", **IMAGE_FILES), strategy, steps=2)
    assert times["images_per_second"] == pytest.approx(8 / times["step_seconds"])


def test_bad_steps():
    with pytest.raises(ValueError, match="Received: steps=0"):
        throughput(TrainingConfig(data="digits", model="small"), steps=0)
