"""Styles, scripts and templates that all HTML pages of selfsr share."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PAGE_FOLDER = Path(__file__).parent / "page"


def read_asset(name: str) -> str:
    """Return the text of a file in `page/`, a style or a script."""
    return (_PAGE_FOLDER / name).read_text(encoding="utf-8")


def render_template(name: str, context: dict[str, Any], *folders: Path) -> str:
    """Render a template of `page/` or of `folders`, which are searched first."""
    environment = Environment(
        loader=FileSystemLoader([*folders, _PAGE_FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(context)


def dump_script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element, whatever strings it contains."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
