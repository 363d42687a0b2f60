import pytest

from keras_ic.training import TrainingConfig, describe, network, preset
from keras_ic.training.networks import count_parameters

pytestmark = pytest.mark.tensorflow_only


def test_of_image_files(shards, tiny):
    config = preset("small", data=str(shards), model="Tiny", image_size=32, batch=8, epochs=3)
    text = describe(config, replicas=2)
    parameters = count_parameters(network(config, (32, 32, 3), 4, is_standardized=False))
    for part in (
        "62 to train with, 19 to judge on, 4 classes",
        f"Tiny, relu-ic-conv, {parameters:,} parameters",
        "8 on 2 replica(s), 4 on each",
        "7 an epoch, 21 in 3 epochs",
        "up to 0.0125, cosine",
        "GiB a replica",
    ):
        assert part in text


def test_of_a_set_in_memory():
    text = describe(TrainingConfig(data="digits", model="small", batch=32, train_size=70))
    assert "70 to train with, 359 to judge on, 10 classes" in text
    assert "3 an epoch, 600 in 200 epochs" in text


def test_memory_is_that_of_the_largest_part():
    """Twice the batch takes twice the activations, and accumulation in two parts half of them."""

    def activations(**values):
        text = describe(TrainingConfig(model="resnet20", data="digits", image_size=224, **values))
        return float(text.partition("activations ")[2].partition(",")[0])

    whole = activations(batch=64)
    assert whole > 1
    assert activations(batch=128) == pytest.approx(2 * whole, rel=0.01)
    assert activations(batch=64, accumulate=2) == pytest.approx(whole / 2, rel=0.01)


def test_what_cannot_be(shards, tiny):
    config = preset("small", data=str(shards), model="Tiny", image_size=32, batch=8)
    with pytest.raises(ValueError, match=r"9 would be\. Received: batch=8"):
        describe(config, replicas=3)
    config = preset("small", data=str(shards), model="Tiny", image_size=32, batch=64)
    with pytest.raises(ValueError, match="Received: 62 images, batch=64"):
        describe(config)
