"""How much memory is said to be free."""

from model_compression.core import free_memory
from model_compression.core.free_memory import available_memory_bytes


def test_available_memory_is_that_of_the_container_where_it_has_less(tmp_path, monkeypatch):
    assert 0 < available_memory_bytes() < 2**50
    assert free_memory._container_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert free_memory._container_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_memory._container_bytes(tmp_path) == 900
    monkeypatch.setattr(free_memory, "_container_bytes", lambda: 900)
    assert available_memory_bytes() == 900
