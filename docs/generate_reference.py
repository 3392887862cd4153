"""Generate the pages of the site that are not files in docs/. A hook of mkdocs; nothing generated is committed.

* `reference/recipe.md`: every key of a recipe, from the schema that reads recipes;
* `reference/python.md`: the public functions and classes, rendered by mkdocstrings;
* `index.md`, `contributing.md` and others: the files of those names in the repository root, with their links adapted.
"""

import importlib
import json
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.blockprocessors import ListIndentProcessor, OListProcessor, UListProcessor
from markdown.extensions import Extension

ROOT = Path(__file__).resolve().parents[1]

# Pages that are files of the repository root.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
}

# Full references of kinds that the code refers to by a short form, their attribute `paper`, or not at all.
PAPERS = {
    "back_projection": 'Li et al., "Best-Buddy GANs for Highly Detailed Image Super-Resolution", AAAI 2022',
    "best_buddy": 'Li et al., "Best-Buddy GANs for Highly Detailed Image Super-Resolution", AAAI 2022',
    "bsrgan": 'Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", '
    "ICCV 2021",
    "compact": 'Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", '
    "ICCVW 2021 (its code)",
    "dat": 'Chen et al., "Dual Aggregation Transformer for Image Super-Resolution", ICCV 2023',
    "hat": 'Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023',
    "latent_diffusion": 'Wang et al., "Exploiting Diffusion Prior for Real-World Image Super-Resolution", IJCV 2024 '
    "(StableSR)",
    "msrresnet": 'Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018 '
    "(its code)",
    "patch": 'Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017',
    "perceptual": 'Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016',
    "rank_srresnet": 'Zhang et al., "RankSRGAN: Generative Adversarial Networks with Ranker for Image '
    'Super-Resolution", ICCV 2019',
    "rcan": 'Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018',
    "real_esrgan": 'Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", '
    "ICCVW 2021",
    "realplksr": 'Lee et al., "Partial Large Kernel CNNs for Efficient Super-Resolution", arXiv 2404.11848, 2024',
    "rrdb": 'Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018',
    "self_similarity": 'Chen et al., "SSL: A Self-similarity Loss for Improving Generative Image Super-resolution", '
    "ACM MM 2024",
    "residual_shifting": 'Yue et al., "ResShift: Efficient Diffusion Model for Image Super-resolution by Residual '
    'Shifting", NeurIPS 2023',
    "shift_distillation": 'Wang et al., "SinSR: Diffusion-Based Image Super-Resolution in a Single Step", CVPR 2024',
    "span": 'Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPRW 2024',
    "swinir": 'Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021',
    "unet_sn": 'Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", '
    "ICCVW 2021",
    "vgg": 'Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018',
}

_YEAR = re.compile(r"\b(19|20)\d\d\b|arXiv")
_SECTION = re.compile(r"^(?:Attributes|Args|Raises|Returns|Yields|Example|Examples):\s*$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+)\)")
# At each place the earlier match counts: code outside of links is skipped, a link is found with the code of its text.
_CODE_OR_LINK = re.compile(r"(?P<code>`[^`\n]+`)|!?\[[^\]]*\]\([^()\s]+\)")
Schema = Mapping[str, Any]


# The functions that mkdocs calls.


def on_config(config: Any) -> Any:
    """Let two spaces continue a list item, as code hosts do."""
    config.markdown_extensions.append(_TwoSpaces())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {"reference/recipe.md": recipe_page(), "reference/python.md": python_page()}
    for source, page in ROOT_PAGES.items():
        pages[page] = (ROOT / source).read_text(encoding="utf-8")
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Make links between the repository root and docs/ point to pages of the site."""
    uri = page.file.src_uri
    source = next((root for root, target in ROOT_PAGES.items() if target == uri), f"docs/{uri}")
    return adapt_links(markdown, source=source, page=uri)


class _TwoSpaces(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # A processor reads the tab length when it is created; code blocks keep their four spaces.
        usual, md.tab_length = md.tab_length, 2
        for processor, name, priority in (
            (ListIndentProcessor, "indent", 90),
            (OListProcessor, "olist", 40),
            (UListProcessor, "ulist", 30),
        ):
            md.parser.blockprocessors.register(processor(md.parser), name, priority)
        md.tab_length = usual


def adapt_links(markdown: str, *, source: str, page: str) -> str:
    """Return the text of a page with its links adapted.

    Args:
        markdown: the text.
        source: path of the file in the repository, from the repository root.
        page: path of the page in the site, such as `index.md`.
    """

    def adapt(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if linked in ROOT_PAGES:
            to = ROOT_PAGES[linked]
        elif linked.startswith("docs/"):
            to = linked.removeprefix("docs/")
            if (ROOT / linked).is_dir() and (ROOT / linked / "README.md").exists():
                to += "/README.md"
        elif linked == "docs":
            to = "index.md"
        else:
            return text  # a file of the repository without a page: keep only its name
        return f"{image}[{text}]({posixpath.relpath(to, posixpath.dirname(page) or '.')}{hash_sign}{anchor})"

    # Code, in fences or between backticks, stays as it is; a link whose text has code is a link.
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):
        parts[index] = _CODE_OR_LINK.sub(
            lambda found: found[0] if found["code"] else _LINK.sub(adapt, found[0]), parts[index]
        )
    return "".join(parts)


# The Python reference.


def python_page() -> str:
    """Return the page of all public names, for mkdocstrings to fill."""
    lines = [
        "# Python reference",
        "",
        "Everything on this page needs only PyTorch. Images are float tensors `[N, C, H, W]` in [0, 1] "
        "unless a function says otherwise.",
    ]
    for module, intro in (("selfsr", "The losses of this project."), ("selfsr.losses", "Losses of other papers.")):
        names = importlib.import_module(module).__all__
        lines += ["", f"## {module}", "", intro]
        for name in names:
            lines += ["", f"::: {module}.{name}"]
    return "\n".join(lines) + "\n"


# The recipe reference.


def recipe_page() -> str:
    """Return the page of all keys of a recipe."""
    recipe = importlib.import_module("selfsr.recipe").Recipe
    return _RecipePage(recipe.model_json_schema()).text()


class _RecipePage:
    """Renders a JSON schema: the recipe's own keys, each union with its kinds, and the other parts."""

    def __init__(self, schema: Schema) -> None:
        self.root = schema
        self.definitions: Schema = schema.get("$defs", {})
        self.unions: dict[tuple[str, ...], str] = {}  # the kinds' definitions: where the union stands first
        self.parts: dict[str, str] = {}  # definitions without a kind: where they stand first
        self._find(schema, "")

    def text(self) -> str:
        """Return the page in Markdown."""
        blocks = [
            "# Recipe reference",
            "One YAML file is one run. This page is generated from the schema that reads recipes; "
            "`selfsr recipes schema` writes the same schema for editors. A key without a default is required. "
            "`<name>` in a path is a name of your choice.",
            "## Recipe",
            self._description(self.root),
            self._table(self.root),
        ]
        for kinds, path in self.unions.items():
            blocks += [f"## {self._title(path)}", f"One of these at `{path}`, chosen by `kind`."]
            for name in kinds:
                blocks += self._section(name)
        blocks += ["## Parts", "Groups of keys inside of the above. They have no `kind`."]
        for name, path in self.parts.items():
            blocks += self._section(name, path)
        return "\n\n".join(block for block in blocks if block) + "\n"

    def _find(self, schema: Schema, path: str) -> None:
        """Collect all unions and parts below a schema, in the order of reading."""
        for key, value in schema.get("properties", {}).items():
            for inner, inner_path in self._inner(value, f"{path}.{key}".lstrip(".")):
                if "discriminator" in inner and "propertyName" in inner["discriminator"]:
                    names = _kinds_of(inner)
                    if not any(set(names) <= set(kinds) for kinds in self.unions):
                        self.unions[names] = inner_path
                        for name in names:
                            self._find(self.definitions[name], inner_path)
                elif "$ref" in inner and _name_of(inner) not in self.parts:
                    name = _name_of(inner)
                    if not any(name in kinds for kinds in self.unions):
                        self.parts[name] = inner_path
                        self._find(self.definitions[name], inner_path)

    def _inner(self, schema: Schema, path: str) -> Iterator[tuple[Schema, str]]:
        """Yield the schemas of the alternatives, items and values by name of a schema, each with its path."""
        if "$ref" in schema or "discriminator" in schema:
            yield schema, path
            return
        for alternative in [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]:
            yield from self._inner(alternative, path)
        if isinstance(schema.get("additionalProperties"), Mapping):
            yield from self._inner(schema["additionalProperties"], f"{path}.<name>")
        if isinstance(schema.get("items"), Mapping):
            yield from self._inner(schema["items"], path)

    def _section(self, name: str, path: str | None = None) -> list[str]:
        definition = self.definitions[name]
        kinds = self._kinds(definition)
        heading = " or ".join(f"`{kind}`" for kind in kinds) or f"`{path}`"
        blocks = [f'<a id="{_anchor(name)}"></a>', f"### {heading}", self._description(definition)]
        if paper := self._paper(name, kinds):
            blocks.append(f"Paper: {_escape(paper)}.")
        return [*blocks, self._table(definition) or "No options."]

    def _kinds(self, definition: Schema) -> list[str]:
        kind = definition.get("properties", {}).get("kind", {})
        return [kind["const"]] if "const" in kind else list(kind.get("enum", []))

    def _paper(self, name: str, kinds: list[str]) -> str | None:
        """Return where a kind was published; None if its description says so, or if nothing is known."""
        known = next((PAPERS[kind] for kind in kinds if kind in PAPERS), None)
        if known or not kinds or _YEAR.search(self.definitions[name].get("description", "")):
            return known
        references = (_module_headline(name), getattr(_spec_class(name), "paper", ""))
        return next((text.rstrip(".") for text in references if _YEAR.search(text)), None)

    def _description(self, definition: Schema) -> str:
        # Sections such as "Attributes:" are for readers of the code.
        text = _SECTION.split(definition.get("description", ""))[0]
        return _link_pages(_escape(text.strip()))

    def _table(self, definition: Schema) -> str:
        rows = [(key, value) for key, value in definition.get("properties", {}).items() if key != "kind"]
        if not rows:
            return ""
        required = definition.get("required", ())
        lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for key, value in rows:
            default = "" if key in required else self._default(value)
            meaning = _link_pages(_escape(value.get("description", ""))).replace("\n", " ")
            lines.append(f"| `{key}` | {_cell(self._type(value))} | {_cell(default)} | {_cell(meaning)} |")
        return "\n".join(lines)

    def _default(self, value: Schema) -> str:
        if "default" not in value:
            return "depends on other keys"
        default = value["default"]
        if isinstance(default, Mapping) and default:
            return "its own defaults"
        return f"`{json.dumps(default)}`"

    def _type(self, schema: Schema) -> str:
        """Describe the values that a schema accepts."""
        if "$ref" in schema:
            return f"[{self._label(_name_of(schema))}](#{_anchor(_name_of(schema))})"
        if "discriminator" in schema and "propertyName" in schema["discriminator"]:
            kinds = _kinds_of(schema)
            if kinds in self.unions:
                return f"[one of {len(kinds)} kinds](#{_slug(self._title(self.unions[kinds]))})"
            return " or ".join(map(self._type, schema["oneOf"]))
        if "const" in schema:
            return f"`{json.dumps(schema['const'])}`"
        if "enum" in schema:
            return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
        alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
        if alternatives:
            return " or ".join(dict.fromkeys(self._type(alternative) for alternative in alternatives))
        return self._plain_type(schema)

    def _plain_type(self, schema: Schema) -> str:
        kind = schema.get("type")
        if kind == "array":
            if "prefixItems" in schema:
                items = [self._type(item) for item in schema["prefixItems"]]
                return f"list of {len(items)}: " + "; ".join(dict.fromkeys(items))
            return f"list of {self._type(schema.get('items', {}))}"
        if kind == "object":
            values = schema.get("additionalProperties")
            names = schema.get("propertyNames", {}).get("enum")
            by = " or ".join(f"`{name}`" for name in names) if names else "name"
            return f"{self._type(values)}, by {by}" if isinstance(values, Mapping) else "mapping"
        if kind == "string":
            return "path" if schema.get("format") == "path" else "text"
        words = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "null": "`null`"}
        limits = [
            f"{sign} {schema[key]:g}"
            for key, sign in (
                ("exclusiveMinimum", "above"),
                ("minimum", "at least"),
                ("exclusiveMaximum", "below"),
                ("maximum", "at most"),
            )
            if key in schema
        ]
        return " ".join([words.get(str(kind), "any value"), " and ".join(limits)]).strip()

    def _label(self, name: str) -> str:
        kinds = self._kinds(self.definitions[name])
        return f"`{kinds[0]}`" if kinds else f"keys of `{self.parts.get(name, name)}`"

    def _title(self, path: str) -> str:
        """Return the heading of the union at a path: its keys without names of the user's choice."""
        return " ".join(part for part in path.split(".") if part != "<name>").replace("_", " ").capitalize()


def _name_of(reference: Schema) -> str:
    return reference["$ref"].rsplit("/", 1)[-1]


def _kinds_of(union: Schema) -> tuple[str, ...]:
    return tuple(_name_of(reference) for reference in union["oneOf"])


def _anchor(name: str) -> str:
    return "part-" + re.sub(r"\W+", "-", name).lower()


def _slug(title: str) -> str:
    from pymdownx.slugs import slugify

    return slugify(case="lower")(title, "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escape(text: str) -> str:
    """Keep `<...>` outside of code from being read as HTML."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def _link_pages(text: str) -> str:
    return re.sub(r"\bdocs/([\w/-]+\.md)", r"[\1](../\1)", text)


def _spec_classes() -> set[Any]:
    base = importlib.import_module("selfsr.spec").Spec
    pending, classes = [base], set()
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            classes.add(subclass)
    return classes


def _spec_class(name: str) -> Any:
    """Return the class of a definition; None if several classes have its name."""
    classes = [cls for cls in _spec_classes() if cls.__name__ == name]
    return classes[0] if len(classes) == 1 else None


def _module_headline(name: str) -> str:
    """Return the first paragraph of the module that defines a kind; empty if it defines several kinds."""
    cls = _spec_class(name)
    if cls is None:
        return ""
    kinds = [spec for spec in _spec_classes() if spec.__module__ == cls.__module__ and "kind" in spec.model_fields]
    if len(kinds) != 1:
        return ""
    return (sys.modules[cls.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
