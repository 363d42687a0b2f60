"""Every Python block in the README, in docs/ and in the docstrings of public names runs as it
stands.
"""

import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import keras
import pytest

import keras_ic
from keras_ic import training
from keras_ic.training.report import table as table_of

ROOT = Path(__file__).parent.parent
# Pages and packages whose examples train networks at length: the code is the same on every backend,
# and has tests of its own there.
TRAINING = {"applications", "finetuning", "training", "tuning"}
# Packages whose docstrings train networks or search: `make docs` runs them too.
LONG = {"training", "tuning"}
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks_of(text):
    return [textwrap.dedent(code) for _, code in BLOCK.findall(text)]


def public_objects():
    """(name, object) of the package, its modules but the kernels of other backends, and what is
    defined in them without an underscore.
    """
    others = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
    for info in pkgutil.walk_packages(keras_ic.__path__, "keras_ic."):
        package, _, last = info.name.rpartition(".")
        if last == "__main__" or (package == "keras_ic.kernels" and last in others):
            continue
        module = importlib.import_module(info.name)
        yield info.name, module
        for name, value in vars(module).items():
            if (
                not name.startswith("_")
                and getattr(value, "__module__", None) == info.name
                and (inspect.isclass(value) or inspect.isfunction(value))
            ):
                yield f"{info.name}.{name}", value


def examples():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for i, code in enumerate(blocks_of(path.read_text())):
            marks = [pytest.mark.tensorflow_only] if path.stem in TRAINING else []
            yield pytest.param(code, id=f"{path.relative_to(ROOT)}-{i}", marks=marks)
    for name, value in public_objects():
        for i, code in enumerate(blocks_of(inspect.getdoc(value) or "")):
            package = name.split(".")[1]
            marks = [pytest.mark.tensorflow_only] if package in TRAINING else []
            marks += [pytest.mark.slow(reason="trains")] if package in LONG else []
            yield pytest.param(code, id=f"{name}-{i}", marks=marks)


@pytest.mark.parametrize("code", list(examples()))
def test_example_runs(code, tmp_path, monkeypatch):
    if keras.backend.backend() != "tensorflow" and re.search(
        r"tensorflow|tf\.|training_dataset", code
    ):
        pytest.skip("the example is about TensorFlow")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<example>", "exec"), {"__name__": "__example__"})


def test_the_layer_and_the_readme_have_examples():
    assert len(blocks_of(inspect.getdoc(keras_ic.IC))) >= 2
    assert blocks_of((ROOT / "README.md").read_text())


@pytest.mark.parametrize("name", keras_ic.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(keras_ic, name)
    if callable(value):
        text = inspect.getdoc(value)
        assert "```python" in text
        assert ("Args:" in text) == bool(inspect.signature(value).parameters)


def test_every_figure_of_a_committed_report_has_its_records():
    for table in sorted(ROOT.glob("docs/results/**/table.md")):
        if not (table.parent / "summary.json").exists():  # of a search
            continue
        summaries = training.summarize(training.find(table.parent))
        for line in table_of(summaries).splitlines():
            assert line in table.read_text(encoding="utf-8").splitlines(), table
