import pytest

from keras_ic.imagenet.scaling import scale

KNOWN = {
    "share": 128,
    "device_seconds": 0.1,
    "exchanged": 100_000_000,
    "inside": 1e11,
    "between": 1e10,
    "input_per_second": 20000.0,
}


def test_one_machine_pays_for_its_own_links_alone():
    found = scale(1, 8, **KNOWN)
    assert found.exchange_seconds == pytest.approx(2 * 7 / 8 * 1e8 / 1e11)
    assert (
        found.step_seconds == pytest.approx(0.1 + found.exchange_seconds)
        and found.limit == "compute"
    )
    assert found.images_per_second == pytest.approx(8 * 128 / found.step_seconds)
    assert found.hours == pytest.approx(1_281_167 * 90 / found.images_per_second / 3600)


def test_what_limits():
    assert scale(8, 8, **{**KNOWN, "between": 1e9}).limit == "exchange"
    slow = scale(8, 8, **{**KNOWN, "input_per_second": 1000.0})
    assert slow.limit == "input" and slow.images_per_second == pytest.approx(8 * 1000)


@pytest.mark.parametrize(
    "name", ["share", "exchanged", "device_seconds", "between", "inside", "input_per_second"]
)
def test_bad_numbers(name):
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        scale(1, 1, **{**KNOWN, name: 0})
