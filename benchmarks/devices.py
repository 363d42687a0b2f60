"""Whether a training comes to the same numbers on any number of devices and processes.

    python -m benchmarks.devices --out docs/results/devices

Trains one small IC network on the digits, with dropout, on one device of this host and on several,
in one process and in two, and writes how far losses, moving statistics and weights are from those
of one device at most: `devices.json` with all values, `devices.md` as a table. The devices are
parts of the host's CPU, and the processes talk over the loopback.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

CONFIG = {
    "data": "digits",
    "model": "small",
    "train_size": 96,
    "batch": 32,
    "epochs": 4,
    "rate": 0.2,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "weight_decay": 0.0,
}
# Backend, devices in all, processes, and whether the weights are spread over a mesh of 2 x 2.
PLACES = [
    ("jax", 1, 1, False),
    ("jax", 2, 1, False),
    ("jax", 4, 1, False),
    ("jax", 8, 1, False),
    ("jax", 4, 1, True),
    ("jax", 4, 2, False),
    ("tensorflow", 1, 1, False),
    ("tensorflow", 2, 1, False),
    ("tensorflow", 4, 1, False),
    ("tensorflow", 2, 2, False),
]
COMPARED = ("loss", "val_loss", "moving statistics", "weights")


def compare(out: Path, jobs: int) -> None:
    """Trains in every place, in so many at a time, and writes what came out."""
    rows, alone, versions = [], {}, {}
    with ThreadPoolExecutor(jobs) as pool:
        all_found = list(pool.map(lambda place: trained(*place), PLACES))
    for (backend, devices, processes, is_spread), found in zip(PLACES, all_found, strict=True):
        versions[backend] = found.pop("versions")
        one = alone.setdefault(backend, found)
        rows.append(
            {
                "backend": backend,
                "devices": devices,
                "processes": processes,
                "weights": "spread, 2 x 2" if is_spread else "replicated",
                "differences": {name: difference(found[name], one[name]) for name in COMPARED},
                "loss": found["loss"],
                "val_loss": found["val_loss"],
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    record = {"configuration": CONFIG, "versions": versions, "places": rows}
    (out / "devices.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "devices.md").write_text(table(rows))
    print(table(rows))


def difference(ours: list, theirs: list) -> float:
    """The largest of two lists of arrays."""
    return max(float(np.abs(np.subtract(*pair)).max()) for pair in zip(ours, theirs, strict=True))


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    header = [
        "backend",
        "devices",
        "processes",
        "weights",
        *(f"{name}: up to" for name in COMPARED),
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        values = [f"{value:.1e}" if value else "0" for value in row["differences"].values()]
        cells = [row[name] for name in ("backend", "devices", "processes", "weights")]
        lines.append([*map(str, cells), *values])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def trained(backend: str, devices: int, processes: int, is_spread: bool) -> dict:
    """What the chief of a training in new processes has found."""
    local = devices // processes
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={local}",
            # Replicas that wait for one another take a thread each.
            "TF_NUM_INTEROP_THREADS": "16",
        }
        arguments = [sys.executable, "-W", "ignore", "-m", "benchmarks.devices"]
        arguments += ["--child", folder, "--devices", str(local)]
        arguments += ["--spread"] if is_spread else []
        started = [
            subprocess.Popen(arguments, env={**environment, **config})
            for config in configurations(processes)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"A training failed: {backend} on {devices} in {processes}.")
        print(f"{backend} on {devices} devices in {processes} processes", flush=True)
        return json.loads(Path(folder, "found.json").read_text())


def configurations(processes: int) -> list[dict[str, str]]:
    """The variable TF_CONFIG of each process."""
    if processes == 1:
        return [{}]
    sockets = [socket.create_server(("localhost", 0)) for _ in range(processes)]
    workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(processes)
    ]


def child(folder: Path, devices: int, is_spread: bool) -> None:
    """One process of a training."""
    import keras

    from keras_ic import IC, distribution, saving, training

    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow:
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * devices,
        )
    if is_spread:
        keras.distribution.set_distribution(spread())
    kind = "mirrored" if on_tensorflow and devices > 1 else "auto"
    is_alone = on_tensorflow and devices == 1 and distribution.cluster() is None
    strategy = None if is_alone else distribution.strategy(kind)
    config = training.TrainingConfig(**CONFIG, synchronized=on_tensorflow)
    record = training.run(config, folder / "run", strategy, verbose=0)
    if record is None:
        return
    # Under it, both processes would have to load the model.
    keras.distribution.set_distribution(None)
    model = saving.load_model(folder / "run" / "model.keras")
    moving = [
        weight
        for layer in model.layers
        if isinstance(layer, IC)
        for weight in (layer.moving_mean, layer.moving_variance)
    ]
    found = {
        "versions": record.head["versions"],
        "loss": record.values("loss"),
        "val_loss": record.values("val_loss"),
        "moving statistics": [weight.numpy().tolist() for weight in moving],
        "weights": [weight.numpy().tolist() for weight in model.trainable_weights],
    }
    (folder / "found.json").write_text(json.dumps(found))


def spread():
    """Channels over the second axis of a mesh of 2 x 2 devices."""
    import keras

    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*conv.*/kernel"] = (None, None, None, "model")
    layout[".*ic/(gamma|beta|moving_mean|moving_variance)"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/devices"))
    parser.add_argument("--jobs", type=int, default=1, help="how many trainings at a time")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--spread", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.devices, arguments.spread)
    else:
        compare(arguments.out, arguments.jobs)
