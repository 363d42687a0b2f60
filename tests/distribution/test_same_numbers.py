"""The comparison of devices that the page shows; `benchmarks/devices.py` makes it."""

import json

from benchmarks import devices
from tests.distribution.conftest import ROOT


def test_the_page_has_the_table_of_the_record_and_all_is_rounding():
    record = json.loads((ROOT / "docs/results/devices/devices.json").read_text())
    places = record["places"]
    assert record["configuration"] == devices.CONFIG
    assert [(each["backend"], each["devices"], each["processes"]) for each in places] == [
        place[:3] for place in devices.PLACES
    ]
    table = devices.table(places)
    assert table == (ROOT / "docs/results/devices/devices.md").read_text()
    assert table in (ROOT / "docs/distribution.md").read_text()
    assert max(max(each["differences"].values()) for each in places) < 1e-5
