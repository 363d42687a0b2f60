"""Which tests a run takes."""

import pytest

from tests.selection import Registry, skips


class Item:
    """A test with these markers."""

    nodeid = "tests/test_some.py::test_one"

    def __init__(self, *markers):
        self.markers = {marker.name: marker.mark for marker in markers}

    def get_closest_marker(self, name):
        return self.markers.get(name)


SLOW = Item(pytest.mark.slow(reason="all applications"))


def test_what_is_marked_slow_is_left_out_with_its_reason():
    assert list(skips(SLOW, "tensorflow", slow=False)) == [
        "slow: all applications (--slow runs it)"
    ]
    assert not list(skips(SLOW, "tensorflow", slow=True))
    assert not list(skips(Item(), "tensorflow", slow=False))


def test_what_needs_tensorflow_is_left_out_elsewhere():
    item = Item(pytest.mark.tensorflow_only)
    assert not list(skips(item, "tensorflow", slow=False))
    (reason,) = skips(item, "jax", slow=True)
    assert "this run is on jax" in reason


def test_slow_without_a_reason_is_an_error():
    with pytest.raises(pytest.UsageError, match=rf"reason=\.\.\..* Received: {Item.nodeid}"):
        list(skips(Item(pytest.mark.slow), "tensorflow", slow=True))


@pytest.mark.parametrize(
    ("name", "slow", "expected"),
    [
        (None, False, Registry.CORE),
        (None, True, Registry.SMALL),
        ("core", True, Registry.CORE),
        ("complete", False, Registry.COMPLETE),
    ],
)
def test_the_registry(name, slow, expected):
    assert Registry.chosen(name, slow) is expected
