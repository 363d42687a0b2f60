"""One training system for images in memory and in files, on one device or many."""

from keras_ic.training import datasets
from keras_ic.training.checkpoint import CheckpointCallback
from keras_ic.training.config import TrainingConfig, grid
from keras_ic.training.dry_run import describe
from keras_ic.training.loop import run
from keras_ic.training.networks import network
from keras_ic.training.optimizers import optimizer
from keras_ic.training.presets import preset
from keras_ic.training.record import Record, find, read
from keras_ic.training.report import report
from keras_ic.training.summary import Summary, summarize
from keras_ic.training.timing import throughput

__all__ = [
    "CheckpointCallback",
    "Record",
    "Summary",
    "TrainingConfig",
    "datasets",
    "describe",
    "find",
    "grid",
    "network",
    "optimizer",
    "preset",
    "read",
    "report",
    "run",
    "summarize",
    "throughput",
]
