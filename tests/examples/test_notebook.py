"""The notebook runs from its first cell to its last."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.mark.slow(reason="does the job of test_quickstart in a kernel of its own")
@pytest.mark.tensorflow_only  # where it is quickest; its code is for every backend
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for package in ("ipykernel", "sklearn", "matplotlib"):
        pytest.importorskip(package)
    notebook = nbformat.read(NOTEBOOK, 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), (
        "the notebook is kept without outputs"
    )
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    trained = next(cell for cell in notebook.cells if "histories = {}" in cell.source)
    accuracies = trained.outputs[-1]["data"]["text/plain"]
    assert all(float(part.split(":")[1].strip(" }")) > 0.8 for part in accuracies.split(","))
    assert (tmp_path / "ic.keras").exists()
