"""Draws accuracy and loss by epoch from the record of a training on ImageNet data.

python benchmarks/curves.py RUN/record.jsonl curves.png
"""

import json
import sys
from pathlib import Path

from keras_ic.extras import needed


def main(record, figure):
    head, *lines = [json.loads(line) for line in Path(record).read_text(encoding="utf-8").splitlines()]
    plt = needed("matplotlib.pyplot", "Matplotlib", "plot")
    fig, (accuracy, loss) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = [line["epoch"] for line in lines]
    for axes, pairs in ((accuracy, ("accuracy", "val_accuracy", "val_top5")), (loss, ("loss", "val_loss"))):
        for name in pairs:
            axes.plot(epochs, [line[name] for line in lines], label=name, linestyle="-" if name.startswith("val") else "--")
        axes.set(xlabel="epoch", xlim=(1, epochs[-1]))
        axes.legend(frameon=False)
    accuracy.set(ylim=(0, 1), title=f"{head['configuration']['model']}, {head['configuration']['order']}, {head['workers']} worker(s)")
    loss.set(yscale="log", title="loss (in training with the penalty)")
    fig.savefig(figure, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
