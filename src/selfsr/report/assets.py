"""The parts that every HTML page of the package is made of: styles, scripts, templates, and how a page is written."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PARTS = Path(__file__).parent / "page"


def asset(name: str) -> str:
    """Return a file of `page/`, a style or a script."""
    return (_PARTS / name).read_text(encoding="utf-8")


def render_template(name: str, context: dict[str, Any], *folders: Path) -> str:
    """Return a filled template of `page/`, or of `folders`, which are searched first."""
    environment = Environment(
        loader=FileSystemLoader([*folders, _PARTS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(context)


def script_json(value: Any) -> str:
    """Return JSON that may stand inside a script element whatever the names in it are."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
