"""YAML by the core schema of version 1.2, read from text and files, and written so that it reads back as itself."""

import re
from pathlib import Path
from typing import Any

import yaml

from selfsr.errors import InputError, describe_value, shorten

_LARGEST_BYTES = 2**24  # a recipe has some kilobytes; a larger file is something else

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_CORE: tuple[tuple[str, re.Pattern[str], list[str]], ...] = (
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    """Words as in YAML 1.2: yes, no, on and off are text, as is 2024-01-01. A duplicate key is an error."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - the base class has it so

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                duplicate = key in seen
            except TypeError:
                raise _error("a key must be a word or a number", key_node) from None
            if duplicate:
                raise _error(f"the key {describe_value(key)} is a duplicate", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise _error("text must not contain the character NUL", node)
        return value

    def construct_core_bool(self, node: yaml.ScalarNode) -> bool:
        text = self.construct_scalar(node)
        if not _BOOL.match(text):
            raise _error(f"expected true or false, got {describe_value(text)}", node)
        return text.lower() == "true"

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        if not _INT.match(text):
            raise _error(f"expected an integer, got {describe_value(text)}", node)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quote every text that version 1.1 or version 1.2 of YAML would read as something else."""

    yaml_implicit_resolvers: dict = {  # noqa: RUF012 - the base class has it so
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.construct_core_bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)


def read_yaml(text: str, source: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        source: its file or origin, for error messages.

    Raises:
        InputError: the text is not valid YAML; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{source}{line}: expected valid YAML, got an error: {shorten(problem)}.") from error
    except RecursionError as error:
        raise InputError(f"{source}: expected valid YAML, got values nested too deeply; flatten them.") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML's constructors fail with any of these for a wrong value after a tag such as !!float.
        problem = " ".join(str(error).split())
        raise InputError(f"{source}: expected valid YAML, got a value that cannot be read: {shorten(problem)}.") from (
            error
        )


def write_yaml(document: Any) -> str:
    """Return a document of plain values as YAML."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark.

    Raises:
        InputError: the file is a weights file, another binary file, or text in another encoding.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST_BYTES + 1)
    if kind := _describe_binary(data):
        raise InputError(f"{path}: expected YAML text, such as a recipe, got {kind}; pass the recipe file.")
    encoding = _find_byte_order_mark(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte 0x{data[error.start]:02x}, which another encoding has" if encoding == "utf-8-sig" else "a part"
        raise InputError(
            f"{path} line {line}: expected text in UTF-8, got {what}; save the file as UTF-8 in your editor."
        ) from error


def _find_byte_order_mark(data: bytes) -> str:
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _describe_binary(data: bytes) -> str | None:
    """Describe the kind of a file that is not text; None for text."""
    header = data[:9]
    is_safetensors = header[8:] == b"{" and 0 < int.from_bytes(header[:8], "little") < 2**27
    if is_safetensors or header.startswith((b"PK\x03\x04", b"\x80")):
        return "a weights file"
    if len(data) > _LARGEST_BYTES:
        return f"a file of more than {_LARGEST_BYTES // 2**20} MB"
    if _find_byte_order_mark(data) == "utf-8-sig" and b"\0" in data:
        text = data[: len(data) // 2 * 2]
        halves = (text[::2], text[1::2])
        is_utf16 = any(half.count(0) > 0.8 * len(half) for half in halves)
        return "text in UTF-16 without a byte-order mark" if is_utf16 else "a binary file"
    return None
