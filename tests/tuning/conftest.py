import pytest

pytest.importorskip("keras_tuner", reason="needs keras-tuner")
