"""Objects in JSON files, whose keys come once each."""

from typing import Any


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of ``pairs``, for ``object_pairs_hook`` of `json.loads`.

    Raises ValueError for a key that is there twice, of which one value would be lost.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found
