import pytest

from keras_ic.training import TrainingConfig, record
from keras_ic.tuning import board

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
)


def test_curves_and_hparams_of_every_seed(tmp_path):
    values = TrainingConfig(epochs=2).to_dict()
    for seed in (0, 1):
        folder = tmp_path / "trials" / "07" / f"seed{seed}"
        head = {
            "configuration": {name: value for name, value in values.items() if name != "seed"},
            "seed": seed,
        }
        head |= {"schema": record.SCHEMA, "versions": {}, "parameters": 9, "steps": 1}
        record.begin(folder, head, None, 0)
        for epoch in (1, 2):
            metrics = {
                "loss": 1 / epoch,
                "accuracy": 0.1 * epoch,
                "val_loss": None,
                "val_accuracy": 0.2 * epoch + seed,
            }
            record.append(folder, {"epoch": epoch, **metrics, "seconds": 1, "step_seconds": 1})
    result = {"trial": "07", "values": {"rate": 0.05, "order": "conv-bn-relu"}}
    board.write(tmp_path, result)
    board.write(tmp_path, result)  # of a search that was stopped just after it
    for seed in (0, 1):
        events = accumulators.EventAccumulator(str(tmp_path / "tensorboard" / "07" / f"seed{seed}"))
        events.Reload()
        assert {"accuracy", "loss", "val_accuracy", "val_loss"} <= set(events.Tags()["tensors"])
        read = [
            (event.step, event.tensor_proto.float_val[0])
            for event in events.Tensors("val_accuracy")
        ]
        assert read == [(1, pytest.approx(0.2 + seed)), (2, pytest.approx(0.4 + seed))]
        started = events.summary_metadata["_hparams_/session_start_info"].plugin_data
        assert (
            started.plugin_name == "hparams"
            and b"rate" in started.content
            and b"conv-bn-relu" in started.content
        )
