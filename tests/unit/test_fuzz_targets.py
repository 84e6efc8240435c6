"""The fuzzing targets take good files, and damaged ones fail by an error of this package."""

import pytest
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module", params=sorted(TARGETS))
def target(request):
    found = TARGETS[request.param]
    return found, list(found.seeds())


def test_seeds_are_good_files(target, tmp_path):
    found, seeds = target
    for seed in seeds:
        path = tmp_path / "file.safetensors"
        path.write_bytes(seed)
        if found is TARGETS["teacher-answers"]:
            continue  # refused by its digest, after all else has been read
        found.read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_fail_by_our_own_error(target, data):
    found, (seed, *_) = target
    damaged = bytearray(seed)
    for place in data.draw(st.lists(st.integers(0, len(seed) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    found(bytes(damaged[: data.draw(st.integers(0, len(seed)))]))
