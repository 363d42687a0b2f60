"""What the IC layer costs beside stock BatchNormalization, alone and with stock Dropout after it.

    KERAS_BACKEND=tensorflow python benchmarks/layer.py --out benchmarks/results

All variants run in one process, in turns, so that whatever else the machine does hits each alike;
figures are medians, with the cost of the loss around the layer subtracted. "floor" is the time in
which the values could move through memory if nothing were computed: forward and backward read the
input three times and the gradient twice and write each once, 7 transfers of the tensor; inference
needs 2. A transfer is timed as half a copy.

"peak" is how far the memory in use rises during one step above what it was before, in sizes of the
input tensor, with the rise of the loss alone subtracted: on TensorFlow as its allocator counts it,
elsewhere as Linux does for the process (VmHWM; the smallest of several steps).
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

import keras_ic

BACKEND = keras.backend.backend()
SHAPES = {
    (64, 32, 32, 64): -1,
    (64, 8, 8, 256): -1,
    (256, 512): -1,
    (8, 56, 56, 256): -1,
    (64, 64, 32, 32): 1,
}
MODES = {"tensorflow": ("graph", "xla"), "jax": ("jit",), "torch": ("eager",)}[BACKEND]
RATE = 0.05
TRANSFERS = {"training": 7, "inference": 2}


def variants(axis, policy):
    """By name, what turns an input into an output, given `training`; each with its own layers."""
    bn, bn_too = (layers.BatchNormalization(axis=axis, dtype=policy) for _ in range(2))
    dropout, ic = (
        layers.Dropout(RATE, dtype=policy, seed=0),
        keras_ic.IC(RATE, axis=axis, dtype=policy, seed=0),
    )
    return {
        "loss alone": ([], lambda x, training: x * 1),
        "BN": ([bn], lambda x, training: bn(x, training=training)),
        "BN+Dropout": (
            [bn_too, dropout],
            lambda x, training: dropout(bn_too(x, training=training), training=training),
        ),
        "IC": ([ic], lambda x, training: ic(x, training=training)),
    }


def step_of(used, function, x, cotangents, mode, training):
    """A function without arguments that runs the step once and waits for it."""
    for layer in used:
        layer.build(x.shape)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def step(x, cotangents):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(function(x, training) * cotangents)
            return tape.gradient(loss, x) if training else loss

        compiled = tf.function(step, jit_compile=mode == "xla", autograph=False)
        return lambda: compiled(x, cotangents).numpy()
    if BACKEND == "jax":
        import jax

        variables = [v for layer in used for v in layer.variables]

        def call(values, x):
            with keras.StatelessScope(
                state_mapping=list(zip(variables, values, strict=True))
            ) as scope:
                y = function(x, training)
            return (y * cotangents).sum(), [scope.get_current_value(v) for v in variables]

        compiled = jax.jit(jax.value_and_grad(call, argnums=1, has_aux=True) if training else call)
        state = [[v.value for v in variables]]

        def run():
            out = compiled(state[0], x)
            state[0] = (out[0] if training else out)[1]
            jax.block_until_ready(out)

        return run
    import torch

    def run():
        leaf = x.detach().requires_grad_(training)
        with torch.set_grad_enabled(training):
            loss = (function(leaf, training) * cotangents).sum()
        if training:
            loss.backward()
        if loss.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def seconds(steps, repeats):
    """The median time of each step; the steps take turns."""
    for step in steps.values():
        step()
        step()
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def peaks(steps, repeats=5):
    """By how many bytes the memory in use rises during a step, the smallest rise of some; None
    where it cannot be told.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        rises = {}
        for name, step in steps.items():
            before = tf.config.experimental.get_memory_info("CPU:0")["current"]
            tf.config.experimental.reset_memory_stats("CPU:0")
            step()
            rises[name] = tf.config.experimental.get_memory_info("CPU:0")["peak"] - before
        return rises
    if not os.path.exists("/proc/self/clear_refs"):
        return dict.fromkeys(steps)
    library, seen = ctypes.CDLL(None), {name: [] for name in steps}

    def status(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    for _ in range(repeats):
        for name, step in steps.items():
            gc.collect()
            library.malloc_trim(0)
            before = status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
            step()
            seen[name].append(status("VmHWM") - before)
    return {name: min(values) for name, values in seen.items()}


def compare(shape, axis, policy, mode, repeats):
    """One row for training and one for inference."""
    dtype = keras.DTypePolicy(policy).compute_dtype
    random = np.random.default_rng(0)
    x, cotangents = (
        ops.cast(ops.convert_to_tensor(random.normal(size=shape).astype("float32")), dtype)
        for _ in range(2)
    )
    buffer = np.zeros(shape, "float32" if dtype == "float32" else "uint16")
    for what in ("training", "inference"):
        steps = {
            name: step_of(used, function, x, cotangents, mode, what == "training")
            for name, (used, function) in variants(axis, policy).items()
        }
        steps["copy"] = buffer.copy
        took = seconds(steps, repeats)
        cost = {name: took[name] - took["loss alone"] for name in ("BN", "BN+Dropout", "IC")}
        rise = peaks(steps)
        peak = {
            name: rise[name] and round((rise[name] - rise["loss alone"]) / buffer.nbytes, 2)
            for name in cost
        }
        yield {
            "backend": BACKEND,
            "mode": mode,
            "shape": shape,
            "axis": axis,
            "policy": policy,
            "what": what,
            "milliseconds": {
                name: round(1000 * value, 3)
                for name, value in {**cost, "loss alone": took["loss alone"]}.items()
            },
            "peak": peak,
            "floor": round(1000 * TRANSFERS[what] * took["copy"] / 2, 3),
            "IC / BN": round(cost["IC"] / cost["BN"], 3),
            "IC / BN+Dropout": round(cost["IC"] / cost["BN+Dropout"], 3),
        }


def table(rows):
    """The rows in Markdown."""
    lines = [
        "| backend | shape, axis | policy | step | BN, ms | BN+Dropout, ms | IC, ms | floor, ms |"
        " IC / BN | IC / (BN+Dropout) |"
    ]
    lines[0] += " peak of BN, tensors | of BN+Dropout | of IC |"
    lines.append("| --- " * 13 + "|")
    for row in rows:
        ms = row["milliseconds"]
        cells = [
            f"{row['backend']} {row['mode']}",
            f"{tuple(row['shape'])}, {row['axis']}",
            row["policy"],
            row["what"],
        ]
        cells += [f"{ms[name]:.2f}" for name in ("BN", "BN+Dropout", "IC")] + [
            f"{row['floor']:.2f}"
        ]
        # What XLA fuses into the loss costs nothing, within the noise: no ratio of noise to noise.
        tells = min(ms["BN"], ms["IC"]) > 0.1 * ms["loss alone"]
        cells += [f"{row[name]:.2f}" if tells else "" for name in ("IC / BN", "IC / BN+Dropout")]
        cells += [
            "" if row["peak"][name] is None else f"{row['peak'][name]:.2f}"
            for name in ("BN", "BN+Dropout", "IC")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policies", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument(
        "--shapes",
        type=int,
        default=len(SHAPES),
        help="how many of the shapes to run, the first of them",
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder for layer-BACKEND.json")
    arguments = parser.parse_args(argv)
    rows = []
    for policy in arguments.policies:
        for shape, axis in list(SHAPES.items())[: arguments.shapes]:
            for mode in arguments.modes:
                rows += compare(shape, axis, policy, mode, arguments.repeats)
                print(table(rows[-2:]).split("\n", 2)[2], flush=True)
    print(table(rows))
    if arguments.out:
        library = __import__(BACKEND)
        versions = {
            "keras_ic": keras_ic.__version__,
            "keras": keras.__version__,
            BACKEND: library.__version__,
            "python": platform.python_version(),
        }
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"layer-{BACKEND}.json").write_text(
            json.dumps({"versions": versions, "machine": machine, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
