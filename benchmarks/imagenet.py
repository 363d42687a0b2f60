"""Images a second of the ImageNet input alone, of raw reading of the same shards, of the training
step alone, and of a stock Keras script.

    python benchmarks/imagenet.py --out record.json [--data imagenet2012] [--size 224] [--batch 256]
    [--model resnet50-v1.5] [--seconds 10]

The stock script has the same network as the baseline, its loss and optimizer, `model.fit`'s own
step, and the input that Keras's documentation shows: decode the whole image, resize it, crop and
flip. All are measured in turns, a little of each, so that what else the machine does falls on all
alike; and, since that is not enough on a busy machine, by the processor's time beside the clock's,
which on a GPU says nothing.
"""

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from keras_ic import distribution
from keras_ic.training import TrainingConfig, datasets, network
from keras_ic.training.optimizers import compile_for


def raw(source):
    """The bytes of the shards, nothing else."""
    return (
        tf.data.TFRecordDataset(source.files, num_parallel_reads=tf.data.AUTOTUNE)
        .repeat()
        .batch(64)
        .prefetch(tf.data.AUTOTUNE)
    )


def whole_images(source, batch, size):
    """What one writes first: each image is decoded whole."""
    image, label, first = source.features

    def load(record):
        parsed = tf.io.parse_single_example(
            record,
            {
                image: tf.io.FixedLenFeature([], tf.string),
                label: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        pixels = tf.image.resize(
            tf.io.decode_jpeg(parsed[image], channels=3), [size * 256 // 224] * 2
        )
        pixels = tf.image.random_flip_left_right(tf.image.random_crop(pixels, [size, size, 3]))
        return (
            tf.cast(pixels, tf.uint8),
            tf.one_hot(parsed[label] - first, len(source.classes)),
            1.0,
        )

    records = tf.data.TFRecordDataset(source.files).repeat().shuffle(1000)
    return (
        records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def enlarged(source, side, folder):
    """A shard of 200 images of the set, each with `side` pixels on its longer side, as ImageNet's
    own have about 500.
    """
    image, _, _ = source.features
    path = str(Path(folder, "train-00000-of-00001"))
    with tf.io.TFRecordWriter(path) as writer:
        for record in tf.data.TFRecordDataset(source.files).take(200):
            example = tf.train.Example.FromString(record.numpy())
            pixels = tf.io.decode_jpeg(
                example.features.feature[image].bytes_list.value[0], channels=3
            )
            pixels = tf.image.resize(pixels, [side * 3 // 4, side], "bicubic")
            pixels = tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)
            example.features.feature[image].bytes_list.value[0] = tf.io.encode_jpeg(
                pixels, quality=95
            ).numpy()
            writer.write(example.SerializeToString())
    return dataclasses.replace(source, files=[path], counts=[200])


def taker(dataset, images_a_batch):
    """A function that takes batches for some seconds, and gives images, seconds and seconds of the
    processor.
    """
    iterator = iter(dataset)
    next(iterator)

    def take(seconds):
        begin, processor, images = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < seconds:
            next(iterator)
            images += images_a_batch
        return images, time.perf_counter() - begin, time.process_time() - processor

    return take


def stepper(model, batch, size, classes):
    """A function that trains some steps on one batch on the device, and gives their times."""
    model.make_train_function()
    iterator = iter(datasets.synthetic_images(batch, (size, size, 3), classes))

    def steps(count):
        times = []
        for _ in range(count):
            begin, processor = time.perf_counter(), time.process_time()
            float(model.train_function(iterator)["loss"])
            times.append((time.perf_counter() - begin, time.process_time() - processor))
        return times

    return steps


def step_times(arguments, classes):
    """Medians of a step of the baseline and the IC network, and of the baseline in stock Keras."""
    baseline = TrainingConfig(
        data="imagenet2012",
        model=arguments.model,
        image_size=arguments.size,
        batch=arguments.batch,
        dtype=arguments.dtype,
        optimizer="sgd",
        order="usual",
    )
    variants = {
        "stock Keras, baseline": ({}, False),
        "baseline": ({}, True),
        "IC": ({"order": "ic", "rate": 0.05}, True),
        "IC, rate 0": ({"order": "ic"}, True),
    }
    networks = {}
    for name, (changes, prepare) in variants.items():
        config = dataclasses.replace(baseline, **changes)
        shape = (arguments.size, arguments.size, 3)
        model = network(config, shape, classes, is_standardized=False)
        if prepare:
            model = distribution.prepare(model)
        compile_for(model, config, 5000, is_one_hot=True)
        networks[name] = stepper(model, arguments.batch, arguments.size, classes)
    times = {name: [] for name in networks}
    for steps in networks.values():
        steps(2)  # compiles
    for _ in range(arguments.rounds):
        for name, steps in networks.items():
            times[name] += steps(2)
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    stock = medians["stock Keras, baseline"]
    return {
        "step_seconds": {name: round(float(value[0]), 4) for name, value in medians.items()},
        "step_over_stock": {
            name: round(float(value[0] / stock[0]), 3) for name, value in medians.items()
        },
        "step_processor_over_stock": {
            name: round(float(value[1] / stock[1]), 3) for name, value in medians.items()
        },
    }


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", default="imagenet2012")
    parser.add_argument("--model", default="resnet50-v1.5")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=10, help="how long each input is timed")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument(
        "--enlarge",
        type=int,
        help="time the input with images that are enlarged to so many pixels, and no steps",
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    size, batch = arguments.size, arguments.batch
    source = datasets.find_images(arguments.data, "train")
    folder = tempfile.TemporaryDirectory()
    if arguments.enlarge:
        source = enlarged(source, arguments.enlarge, folder.name)

    inputs = {
        "raw read": taker(raw(source), 64),
        "input": taker(datasets.training_images(source, batch, size), batch),
        "input, any order": taker(
            datasets.training_images(source, batch, size, deterministic=False), batch
        ),
        "whole images": taker(whole_images(source, batch, size), batch),
    }
    taken = {name: np.zeros(3) for name in inputs}
    for _ in range(arguments.rounds):
        for name, take in inputs.items():
            taken[name] += take(arguments.seconds / arguments.rounds)
    del inputs  # their threads would go on reading ahead
    record = {
        "configuration": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(arguments).items()
            if name != "out"
        },
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "gpus": len(tf.config.list_physical_devices("GPU")),
        },
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "images_per_second": {
            name: round(images / seconds, 1) for name, (images, seconds, _) in taken.items()
        },
        "images_per_processor_second": {
            name: round(images / processor, 1) for name, (images, _, processor) in taken.items()
        },
        **({} if arguments.enlarge else step_times(arguments, len(source.classes))),
    }
    folder.cleanup()
    text = json.dumps(record, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
