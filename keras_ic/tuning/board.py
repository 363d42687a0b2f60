"""The trials for TensorBoard: their curves, and its HParams table of values and scores."""

import pathlib
import shutil
from typing import Any

from keras_ic.training import record as records
from keras_ic.tuning.trial import folder_of
from keras_ic.utils.lazy_imports import needed

FOLDER = "tensorboard"


def write(folder: pathlib.Path, result: dict[str, Any]) -> None:
    """Writes what there is of a trial that has ended; `tensorboard --logdir FOLDER/tensorboard`
    shows it.
    """
    api = needed("tensorboard.plugins.hparams.api", "tensorboard", "tune")
    writer = needed(
        "tensorboard.summary.writer.event_file_writer", "tensorboard", "tune"
    ).EventFileWriter
    event = needed("tensorboard.compat.proto.event_pb2", "tensorboard", "tune").Event
    scalar = needed("tensorboard.plugins.scalar.summary_v2", "tensorboard", "tune").scalar_pb
    own = folder / FOLDER / result["trial"]
    shutil.rmtree(own, ignore_errors=True)  # of a search that was stopped just here
    for run in sorted(folder_of(folder, result["trial"]).glob(f"seed*/{records.NAME}")):
        events = writer(str(own / run.parent.name))
        events.add_event(
            event(
                summary=api.hparams_pb(
                    result["values"], trial_id=f"{result['trial']}-{run.parent.name}"
                )
            )
        )
        for epoch in records.read(run).epochs:
            for name in records.METRICS:
                events.add_event(event(step=epoch["epoch"], summary=scalar(name, epoch[name])))
        events.close()
