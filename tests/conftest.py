"""One backend a run, chosen by KERAS_BACKEND; on TensorFlow the CPU stands for two devices, so that
replicas can be tested anywhere.
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import pytest

from tests import selection
from tests.outcome import Outcome

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def pytest_addoption(parser):
    parser.addoption(
        "--slow",
        action="store_true",
        default=os.environ.get("IC_SLOW", "0") != "0",
        help="run the tests marked slow too, on the small registry (or set IC_SLOW=1)",
    )
    parser.addoption(
        "--registry",
        choices=[each.name.lower() for each in selection.Registry],
        help="the models of tests/conformance: core, or small with --slow, unless this is given",
    )
    parser.addoption(
        "--outcome",
        metavar="FILE.json",
        type=pathlib.Path,
        help="write how many tests passed, and with which versions",
    )


def pytest_configure(config):
    config.registry = selection.Registry.chosen(config.option.registry, config.option.slow)
    path = config.getoption("--outcome")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcome(path.absolute()), "outcome")
    for line in (
        "tensorflow_only: needs the TensorFlow backend (tf.distribute, tf.data, SavedModel)",
        "slow(reason): repeats for completeness what a faster test shows; skipped without --slow",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config, items):
    for item in items:
        for reason in selection.skips(item, BACKEND, config.option.slow):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def fresh_keras():
    """Names, global seeds and policies of one test do not reach the next."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1234)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@pytest.fixture(scope="session")
def strategy():
    """Two replicas on this CPU. One strategy serves all tests: TensorFlow's CPU collectives confuse
    those of two strategies in one process.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
