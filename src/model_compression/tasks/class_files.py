"""Files of a user that say something of each class."""

import json
from typing import Any

from model_compression.core.errors import FileFormatError, NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.json_objects import each_key_once
from model_compression.core.options import setting


def read_class_file(path: str, option: str, others: str, form: str) -> Any:
    """What the JSON file ``path`` holds that ``option`` names: an object or a list.

    ``others`` are the values that the option has besides a file, and ``form`` says what is expected, for messages.
    Raises NotThereError, FileFormatError for a file that cannot be read, and UsageError for other content.
    """
    try:
        text = user_path(path).read_text(encoding="utf-8-sig")
        found = json.loads(text, object_pairs_hook=each_key_once)
    except FileNotFoundError:
        raise NotThereError(f"{path} is not there; {setting(option)} is {others} or a JSON file") from None
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {form}: {error}") from None
    if not isinstance(found, dict | list):
        raise UsageError(f"{path}: {form}, got a {type(found).__name__}")
    return found
