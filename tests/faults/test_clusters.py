"""TF_CONFIG and the variables of SLURM, whatever they hold: a cluster with this process in it,
none, or one clear error.
"""

import json
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_ic.distribution import cluster

FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    max_examples=400,
)
WHOLE = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2222", "c:2222"]},
    "task": {"type": "worker", "index": 1},
}


def check(environment):
    """Reads the cluster; returns whether there is one."""
    try:
        found = cluster(environment)
    except ValueError as error:
        assert "\n" not in str(error) and "Received: " in str(error)
        return False
    if found is None:
        return False
    assert 0 <= found.index < len(found.addresses) == len(set(found.addresses))
    assert found.jobs[found.task[0]][found.task[1]] == found.addresses[found.index]
    for address in found.addresses:
        host, port = address.rsplit(":", 1)
        assert host and 0 < int(port) < 2**16
    return True


def test_cut_at_every_character():
    text = json.dumps(WHOLE)
    assert check({"TF_CONFIG": text})
    assert not any(check({"TF_CONFIG": text[:length]}) for length in range(len(text)))


@FUZZ
@given(place=st.integers(0, len(json.dumps(WHOLE)) - 1), character=st.characters(codec="utf-8"))
def test_one_other_character(place, character):
    text = json.dumps(WHOLE)
    check({"TF_CONFIG": text[:place] + character + text[place + 1 :]})


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["worker", "chief", "ps", "", "a:1", "a:b:3", "a:²", "1"]),
)
JSON = st.recursive(
    LEAVES,
    lambda part: st.one_of(
        st.lists(part, max_size=3),
        st.dictionaries(
            st.sampled_from(["cluster", "task", "type", "index", "chief", "worker"]),
            part,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@FUZZ
@given(jobs=JSON, task=JSON)
@example(jobs={"worker": ["a:1", "b:2"]}, task={"type": ["worker"], "index": 0})
@example(jobs={"worker": ["a:1", "b:²"]}, task={"type": "worker", "index": 0})
@example(jobs={"worker": ["a:1", "b:2"]}, task={"type": "worker", "index": float("inf")})
@example(jobs={"worker": ["a:1", "b:2"]}, task={"type": "worker", "index": 0.5})
@example(jobs={"worker": ["a:1", "b:2"]}, task={"type": {}, "index": True})
def test_any_json(jobs, task):
    check({"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})})
    check({"TF_CONFIG": json.dumps(jobs)})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"cluster":' * 100_000,
        "NaN",
        "1" * 10_000,
        '{"cluster": {"worker": ["\\ud800:1"]}}',
    ],
)
def test_other_text(text):
    assert not check({"TF_CONFIG": text})


SLURM = st.text(alphabet=string.digits + "abn[](),-x²", max_size=12)
SIZES = st.one_of(st.sampled_from(["0", "1", "2", "3", "-1", "", "two", "²", "9" * 30]), SLURM)


@FUZZ
@given(
    rank=SIZES,
    tasks=SIZES,
    hosts=st.one_of(SLURM, st.just("n[1-2]")),
    counts=st.one_of(SLURM, st.just("1(x2)")),
    port=st.sampled_from(["", "9", "x"]),
)
@example(rank="1", tasks="2", hosts="n[1-2]", counts="1(x2)", port="")
@example(rank="0", tasks="two", hosts="n[1-2]", counts="1(x2)", port="")
@example(rank="0", tasks="2", hosts="n[1-2]", counts="1(x2)", port="70000")
@example(rank="0", tasks="2", hosts="n[1-99999999]", counts="1(x99999999)", port="")
def test_slurm(rank, tasks, hosts, counts, port):
    environment = {
        "SLURM_PROCID": rank,
        "SLURM_STEP_NUM_TASKS": tasks,
        "SLURM_STEP_NODELIST": hosts,
        "SLURM_STEP_TASKS_PER_NODE": counts,
    }
    check({**environment, **({"KERAS_IC_PORT": port} if port else {})})
