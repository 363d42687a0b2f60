import atexit

import keras
import pytest

from keras_ic import distribution
from keras_ic.distribution import jax_devices

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.tensorflow_only
def test_kinds():
    import tensorflow as tf

    one = distribution.strategy("one")
    assert one.num_replicas_in_sync == 1
    mirrored = distribution.strategy("mirrored")
    # Two logical CPUs.
    assert (
        isinstance(mirrored, tf.distribute.MirroredStrategy) and mirrored.num_replicas_in_sync == 2
    )
    automatic = distribution.strategy()
    gpus = len(tf.config.list_logical_devices("GPU"))
    assert automatic.num_replicas_in_sync == max(gpus, 1)


@pytest.mark.tensorflow_only
def test_automatic_takes_all_gpus(monkeypatch):
    import tensorflow as tf

    devices = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: devices if kind == "GPU" else []
    )
    assert isinstance(distribution.strategy(), tf.distribute.MirroredStrategy)


@pytest.mark.tensorflow_only
def test_a_tpu_by_its_name(monkeypatch):
    """Without a TPU only the calls can be seen."""
    import tensorflow as tf

    calls = []
    monkeypatch.setenv("TPU_NAME", "pod")
    monkeypatch.setattr(
        tf.distribute.cluster_resolver,
        "TPUClusterResolver",
        lambda tpu: calls.append(tpu) or "resolver",
    )
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", calls.append)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", calls.append)
    monkeypatch.setattr(
        tf.distribute, "TPUStrategy", lambda resolver: (calls.append(resolver), "strategy")[1]
    )
    assert distribution.strategy("tpu") == "strategy"
    assert calls == ["pod", "resolver", "resolver", "resolver"]


@pytest.mark.tensorflow_only
def test_no_tpu(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "none-of-that-name")
    monkeypatch.setattr(
        "tensorflow.distribute.cluster_resolver.TPUClusterResolver",
        lambda tpu: (_ for _ in ()).throw(RuntimeError("no such node")),
    )
    with pytest.raises(
        ValueError,
        match=r"There is no TPU to be had .*no such node.*Received: TPU 'none-of-that-name'",
    ):
        distribution.strategy("tpu")


@pytest.mark.skipif(BACKEND == "torch", reason="torch has no strategies here")
def test_bad_arguments(monkeypatch):
    with pytest.raises(ValueError, match=r"must be one of 'auto'.*Received: kind='mirored'"):
        distribution.strategy("mirored")
    with pytest.raises(ValueError, match="Received: timeout=0"):
        distribution.strategy(timeout=0)
    refusal = "Received: kind='multiworker'" if BACKEND == "jax" else "Received: neither of them"
    with pytest.raises(ValueError, match=refusal):
        distribution.strategy("multiworker")
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(ValueError, match="is no JSON"):
        distribution.strategy()


@pytest.mark.skipif(BACKEND != "torch", reason="for torch alone")
def test_torch_is_told_of_its_own():
    with pytest.raises(NotImplementedError, match="Received: backend 'torch'"):
        distribution.strategy()


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution.DataParallel is JAX's")
def test_jax(monkeypatch):
    import jax

    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    for name in ("check_port", "wait_for_peers", "answer_chief"):
        monkeypatch.setattr(jax_devices, name, lambda *args: None)
    try:
        monkeypatch.setattr(jax, "device_count", lambda: 1)
        assert distribution.strategy() is None and distribution.strategy("one") is None
        monkeypatch.setattr(jax, "device_count", lambda: 2)
        monkeypatch.setenv(
            "TF_CONFIG",
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}',
        )
        assert distribution.strategy("one") is None and not calls
        made = distribution.strategy(timeout=7, start_timeout=9)
        expected = {"initialization_timeout": 9, "heartbeat_timeout_seconds": 7}
        expected["cluster_detection_method"] = "deactivate"
        assert calls == [(("a:1", 2, 1), expected)]
        assert isinstance(made, keras.distribution.DataParallel)
        assert keras.distribution.distribution() is made
        # What is set already is respected.
        assert distribution.strategy() is distribution.strategy("one") is made and len(calls) == 1
    finally:
        keras.distribution.set_distribution(None)
        atexit.unregister(jax.distributed.shutdown)
