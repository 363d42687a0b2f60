import pytest

from keras_ic.training import TrainingConfig, preset
from keras_ic.training.presets import preset_of


def test_the_recipe_of_resnet50():
    """Goyal et al.: 0.1 for each 256 images of a batch, weight decay 1e-4, which in SGD is an L2
    penalty of half of it.
    """
    config = preset("imagenet")
    assert (config.data, config.model, config.image_size) == ("imagenet2012", "resnet50-v1.5", 224)
    assert (config.epochs, config.batch, config.warmup_epochs) == (90, 1024, 5)
    assert config.scaled_learning_rate == pytest.approx(0.4)
    assert (config.optimizer, config.schedule, config.weight_decay) == ("sgd", "cosine", 5e-5)


def test_a_warm_up_leaves_an_epoch_to_train_in():
    assert preset("imagenet", epochs=3).warmup_epochs == 2
    assert preset("small", epochs=1).warmup_epochs == 0
    with pytest.raises(ValueError, match=r"below `epochs`\. Received: warmup_epochs=3"):
        preset("imagenet", epochs=3, warmup_epochs=3)


def test_the_paper_keeps_the_statistics_that_training_leaves():
    assert preset("chen2019").recalibrate == "off"
    assert preset("chen2019", recalibrate="each") == TrainingConfig()


def test_the_preset_that_suits_the_data():
    assert preset_of("digits") == TrainingConfig(data="digits")
    assert preset_of("/images/pets") == preset("imagenet", data="/images/pets")
    assert preset_of("digits", "small", epochs=4).epochs == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smooth": 0.1}, r"did you mean 'label_smoothing'\? Received: label_smooth=0\.1$"),
        ({"warmup_epochs": 12}, "must be below `epochs`. Received: warmup_epochs=12"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"image_size": 16}, "32 or more for image files. Received: image_size=16"),
        ({"train_size": 9}, r"sets that fit into memory \(digits, .*\)\. Received: train_size=9"),
        ({"validation": 0.1}, r"Received: validation=0\.1 with data='imagenet2012'"),
        ({"augment": False}, r"Received: augment=False with data='imagenet2012'"),
        ({"data": 3}, "`data` must be a string. Received: data=3"),
    ],
)
def test_bad_values_of_image_files(changes, message):
    with pytest.raises(ValueError, match=message):
        preset("small", **changes)


def test_an_unknown_preset():
    with pytest.raises(ValueError, match=r"did you mean 'small'\? Received: preset='smal'"):
        preset("smal")


def test_a_name_says_what_differs_from_the_preset_of_the_data():
    config = preset("imagenet", data="/images/pets/", epochs=12, image_size=64)
    name = "pets-resnet50-v1.5-relu-ic-conv-0.05-12epochs-seed0-image_size=64"
    assert config.name == name
    assert preset("imagenet", order="usual", rate=0.3).rate == 0


def test_parts_of_a_batch():
    config = preset("imagenet", batch=96, accumulate=2)
    assert config.batch_of_replica(8) == 12
    with pytest.raises(ValueError, match=r"5 x 2; 100 would be\. Received: batch=96"):
        config.batch_of_replica(5)
