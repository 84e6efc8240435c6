"""Registry: register, create, names, and what it says about names it does not know."""

import pytest

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.registry import Registry


@pytest.fixture
def registry():
    made = Registry("method")

    @made.register("kd")
    def build_kd(temperature=4.0):
        return ("kd", temperature)

    made.register("logits")(lambda: "logits")
    return made


def test_registry_lists_its_names_sorted(registry):
    registry.register("attention")(lambda: None)
    assert registry.names() == list(registry) == ["attention", "kd", "logits"]
    assert "kd" in registry
    assert "dkd" not in registry


def test_name_that_is_not_listed_is_known_all_the_same(registry):
    registry.register("logits-of-a-file", listed=False)(lambda: "from a file")
    assert registry.names() == ["kd", "logits"]
    assert registry.create("logits-of-a-file") == "from a file"
    assert "logits-of-a-file" in registry
    with pytest.raises(
        UnknownNameError, match=r"unknown method 'logits-of-a-fil'; did you mean 'logits'\? known: kd, logits$"
    ):
        registry.get("logits-of-a-fil")


def test_registry_creates_with_options(registry):
    assert registry.create("kd") == ("kd", 4.0)
    assert registry.create("kd", temperature=2.0) == ("kd", 2.0)


def test_registry_returns_the_builder_as_it_was(registry):
    def build():
        return 1

    assert registry.register("new")(build) is build
    assert registry.get("new") is build


def test_registry_refuses_a_name_that_is_taken(registry):
    with pytest.raises(ValueError, match=r"method 'kd' is registered already, by .*build_kd"):
        registry.register("kd")(lambda: None)
    assert registry.create("kd") == ("kd", 4.0)


@pytest.mark.parametrize("wrong", ["logit", "Logits", "KD"])
def test_registry_hints_at_near_matches(registry, wrong):
    near = "kd" if wrong == "KD" else "logits"
    with pytest.raises(UnknownNameError, match=f"unknown method '{wrong}'; did you mean '{near}'\\? known: kd, logits"):
        registry.get(wrong)


def test_registry_lists_all_names_when_none_is_near(registry):
    with pytest.raises(UnknownNameError, match="unknown method 'transformer'; known: kd, logits"):
        registry.create("transformer")


def test_unknown_name_is_a_usage_error(registry):
    with pytest.raises(UsageError):
        registry.create("nothing")
    with pytest.raises(ValueError, match="nothing"):
        registry.create("nothing")


def test_registry_names_an_option_that_the_builder_lacks(registry):
    with pytest.raises(UnknownNameError, match=r"'temprature'.*did you mean 'temperature'"):
        registry.create("kd", temprature=2.0)


def test_registry_takes_the_same_definition_again(registry):
    for temperature in (1.0, 2.0):

        @registry.register("again")
        def build(temperature=temperature):
            return temperature

    assert registry.create("again") == 2.0
