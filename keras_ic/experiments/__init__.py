"""Runs of one recipe that leave a record, grids of runs, and the report of many records."""

from keras_ic.experiments.configuration import Configuration, grid
from keras_ic.experiments.networks import network
from keras_ic.experiments.record import Record, find, read
from keras_ic.experiments.report import report
from keras_ic.experiments.running import run
from keras_ic.experiments.summary import Summary, summarize

__all__ = [
    "Configuration",
    "Record",
    "Summary",
    "find",
    "grid",
    "network",
    "read",
    "report",
    "run",
    "summarize",
]
