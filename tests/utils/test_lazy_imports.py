"""Libraries of the extras are imported at their first use, or named with the pip command."""

import json
import subprocess
import sys

import pytest

from keras_ic.utils.lazy_imports import LazyModule, needed


def test_a_lazy_module_is_imported_with_its_first_attribute():
    code = (
        "import sys; from keras_ic.utils.lazy_imports import LazyModule;"
        "lazy = LazyModule('xmlrpc.server', 'a server', 'none');"
        "before = 'xmlrpc.server' in sys.modules; lazy.SimpleXMLRPCServer;"
        "print([before, 'xmlrpc.server' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1].lower()) == [False, True]


@pytest.mark.parametrize(
    "use",
    [
        lambda: needed("no_such", "No such", "data"),
        lambda: LazyModule("no_such", "No such", "data").x,
    ],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(use):
    with pytest.raises(ImportError, match=r'No such is needed .*pip install "keras-ic\[data\]"'):
        use()
