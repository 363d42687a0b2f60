import itertools
import json
import math
import statistics

import numpy as np
import pytest

from keras_ic.training import TrainingConfig, find, grid, preset, report, summarize
from tests.training.test_record import epoch, head, write

FOLDERS = itertools.count()


def runs(folder, curves, **values):
    """Records of made-up accuracy curves, one a seed."""
    for seed, curve in enumerate(curves):
        values = {**values, "seed": seed, "epochs": len(curve)}
        lines = [
            epoch(number, accuracy, step_seconds=0.01 * number)
            for number, accuracy in enumerate(curve, 1)
        ]
        if values.get("recalibrate") == "end":
            lines.append({"recalibrated": {"val_loss": 1.0, "val_accuracy": curve[-1] + 0.01}})
        write(folder / str(next(FOLDERS)), head(**values), *lines)


USUAL = [[0.1, 0.3, 0.2, 0.4], [0.1, 0.2, 0.4, 0.5]]
IC = [[0.3, 0.46, 0.5, 0.6], [0.2, 0.3, 0.4, 0.44]]


def test_the_figures_of_a_table(tmp_path):
    runs(tmp_path, IC, order="ic", rate=0.1)
    runs(tmp_path, USUAL, order="conv-bn-relu")
    usual, ic = summarize(find(tmp_path))
    assert (usual.label, ic.label, usual.baseline, ic.baseline) == (
        "conv-bn-relu",
        "relu-ic-conv, rate 0.1",
        None,
        "conv-bn-relu",
    )
    np.testing.assert_allclose([usual.training, usual.final], [[40, 40], [40, 50]])
    np.testing.assert_allclose(usual.cross_entropy, [2, 2])
    assert (usual.first_epochs, ic.first_epochs) == ([None, 4], [2, None])  # at 45 %
    # The differences of the seeds are 20 and -6. With one degree of freedom the 97.5 % quantile of
    # Student's t is tan(0.475 pi).
    assert ic.difference.mean == pytest.approx(7)
    assert ic.difference.half_width == pytest.approx(math.tan(0.475 * math.pi) * 13)
    assert usual.difference is None and ic.recalibrated_difference is None
    np.testing.assert_allclose(ic.minutes, [[1, 2, 3, 4]] * 2)
    np.testing.assert_allclose(ic.step_milliseconds, [25, 25])


def test_minutes_do_not_count_a_pause(tmp_path):
    write(
        tmp_path / "run",
        head(),
        *(epoch(number, seconds=600.0 if number == 2 else 30.0) for number in (1, 2, 3)),
    )
    np.testing.assert_allclose(summarize(find(tmp_path))[0].minutes, [[0.5, 1, 1.5]])


def test_trainings_on_imagenet(tmp_path):
    for order, accuracy in (("usual", 0.5), ("ic", 0.6)):
        config = preset("imagenet", order=order, epochs=3, batch=64, dtype="float32").to_dict()
        top = {**head(), "seed": config.pop("seed"), "configuration": config, "replicas": 2}
        lines = (epoch(number, accuracy, val_top5=0.9, damaged=0) for number in (1, 2, 3))
        write(tmp_path / order, top, *lines)
    write(tmp_path / "digits", head(), *(epoch(number) for number in (1, 2, 3)))
    digits, usual, ic = report(tmp_path, tmp_path / "out")
    assert (digits.top5, usual.top5, ic.baseline) == ([], [90.0], "conv-bn-relu")
    assert (ic.difference.mean, ic.difference.half_width) == (pytest.approx(10), None)
    table = (tmp_path / "out" / "table.md").read_text()
    assert (
        "## resnet50-v1.5 on imagenet2012 at 224 pixels, 3 epochs\n\nAll with batch 64, warmup"
        " epochs 2, dtype float32." in table
    )
    assert "| relu-ic-conv, rate 0.05 | 1 | 40.00 | 60.00 | +10.00 | 90.00 | 2.00 |" in table


def test_fluctuation_is_what_a_steady_climb_has_none_of(tmp_path):
    climb = [0.1 * number for number in range(1, 7)]
    jumps = [value + (0.03 if number == 1 else 0) for number, value in enumerate(climb)]
    runs(tmp_path, [climb, jumps], order="conv-bn-relu")
    np.testing.assert_allclose(summarize(find(tmp_path))[0].fluctuation, [0, 3], atol=1e-9)


def test_a_difference_is_paired_by_the_seeds_that_both_have(tmp_path):
    runs(tmp_path, [[0.4], [0.5], [0.9]], order="conv-bn-relu", recalibrate="end")
    runs(tmp_path, [[0.5], [0.6]], order="ic", recalibrate="end")
    write(tmp_path / "alone", head(order="bn-relu-conv", seed=7, epochs=1), epoch(1, 0.7))
    write(tmp_path / "other", head(order="conv-bn-relu", seed=8, epochs=1), epoch(1, 0.4))
    found = {summary.label: summary for summary in summarize(find(tmp_path))}
    paired = found["relu-ic-conv, rate 0.05, recalibrate end"]
    for difference in (paired.difference, paired.recalibrated_difference):
        assert difference.mean == pytest.approx(10)
        assert difference.half_width == pytest.approx(0, abs=1e-9)
    alone = found["bn-relu-conv, recalibrate off"].difference
    assert str(alone) == "+30.00" and alone.half_width is None


def test_the_baseline_has_the_same_recipe(tmp_path):
    runs(tmp_path, USUAL, order="conv-bn-relu")
    runs(tmp_path, IC, order="conv-bn-relu", learning_rate=0.01)
    runs(tmp_path, USUAL, order="conv-bn-relu", dropout=0.1)
    runs(tmp_path, IC, order="ic", learning_rate=0.01, rate_schedule="anneal")
    runs(tmp_path, IC, order="ic", schedule="cosine")
    found = {summary.label: summary.baseline for summary in summarize(find(tmp_path))}
    assert found == {
        "conv-bn-relu": None,
        "conv-bn-relu, learning rate 0.01": None,
        "conv-bn-relu, dropout 0.1": "conv-bn-relu",
        "relu-ic-conv, rate 0.05, learning rate 0.01, rate schedule anneal": (
            "conv-bn-relu, learning rate 0.01"
        ),
        "relu-ic-conv, rate 0.05, schedule cosine": None,
    }


def test_report(tmp_path):
    runs(tmp_path / "runs", USUAL, order="conv-bn-relu", recalibrate="end", batch=32)
    runs(tmp_path / "runs", IC, order="ic", recalibrate="end", batch=32)
    runs(tmp_path / "runs", IC, order="ic", data="cifar100", model="vgg16", train_size=1000)
    write(tmp_path / "runs" / "begun", head(order="conv-relu-ic", epochs=9), epoch(1))
    summaries = report(tmp_path / "runs", tmp_path / "report")
    assert [(summary.config.data, summary.label) for summary in summaries] == [
        ("cifar10", "conv-bn-relu"),
        ("cifar10", "relu-ic-conv, rate 0.05"),
        ("cifar100", "relu-ic-conv, rate 0.05"),
    ]
    text = (tmp_path / "report" / "table.md").read_text()
    assert "## resnet20 on cifar10, 4 epochs\n\nAll with batch 32, recalibrate end.\n" in text
    assert "## vgg16 on cifar100, 1,000 images, 4 epochs" in text
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| conv-bn") or line.startswith("| relu-ic")
    ]
    one = ["2", "40.00 ± 0.00", "45.00 ± 7.07", "", "46.00 ± 7.07", "", "2.00 ± 0.00"]
    assert rows[0].split(" | ")[1:8] == one
    interval = "+7.00 ± 165.18"
    assert rows[1].split(" | ")[4:7:2] == [interval, interval]
    assert (
        "Left out, since not finished (epochs): begun (1 of 9)." in text
        and "Versions: keras 3." in text
    )
    values = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert [value["label"] for value in values] == [summary.label for summary in summaries]
    assert statistics.mean(values[1]["final"]) == pytest.approx(52) and values[1]["curves"][0] == [
        30,
        46,
        50,
        60,
    ]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "resnet20-on-cifar10-4-epochs-recalibrated.png",
        "resnet20-on-cifar10-4-epochs.png",
        "summary.json",
        "table.md",
        "vgg16-on-cifar100-1-000-images-4-epochs.png",
    ]


def test_nothing_to_report(tmp_path):
    write(tmp_path / "a", head(), epoch(1))
    with pytest.raises(ValueError, match=r"None of these runs is finished; .*Received: .*a$"):
        report(tmp_path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_same_run_twice(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, head(epochs=1), epoch(1))
    with pytest.raises(
        ValueError, match=r"Two folders hold the same run; .*Received: '.*a' and '.*b'$"
    ):
        summarize(find(tmp_path))


def test_every_configuration_has_a_label_of_its_own(tmp_path):
    made = grid(
        epochs=1,
        order=["usual", "ic", "conv-relu-ic"],
        rate=[0, 0.1],
        schedule=["steps", "cosine"],
        recalibrate=["end", "off"],
    )
    for number, configuration in enumerate(made):
        values = configuration.to_dict()
        lines = [epoch(1)] + (
            [{"recalibrated": {"val_loss": 1, "val_accuracy": 0.5}}]
            if configuration.recalibrate == "end"
            else []
        )
        write(tmp_path / str(number), head(**values), *lines)
    labels = [summary.label for summary in summarize(find(tmp_path))]
    assert len(set(labels)) == len(labels) == len(made)
    assert labels[0].startswith("conv-bn-relu") and TrainingConfig(**made[0].to_dict()) == made[0]
