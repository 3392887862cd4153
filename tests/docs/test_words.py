"""Words that this project does not use, by the table of docs/style.md."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each phrase as a pattern, with the advice that a failure shows.
PHRASES = {
    r"\b(?:take|takes|taking|took|taken) up\b": "restore, load",
    r"\b(?:go|goes|going|went|gone) on\b": "continue, resume",
    r"\b(?:told|foretells?|foretold|heeds?|heeded)\b": "printed, reported, estimates, uses",
    r"\b(?:it|file|program|command|log|metadata|recipe) (?:said|says so)\b": "printed, states",
    r"\bto be had\b": "available",
    r"\bof no worth\b": "undefined, unused",
    r"\bbeside\b": "next to, in addition to",
    r"\banew\b": "again, new",
    r"\bwhole\b(?! numbers?\b)": "complete, full, entire",
    r"\balone\b": "only",
    r", too\b(?! \w)": "also",
    r"\bjudg(?:e|es|ed|ing)\b": "evaluate",
    r"\bpictures?\b": "image",
    r"\bcritics?\b": "discriminator",
    r"\bspells? out\b": "lists, states",
}

# Texts about the words themselves, and quotations.
ALLOWED = {
    ("docs/style.md", "*"),
    ("docs/glossary.md", "critic"),
}


def python_texts(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment and string."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield token.start[0], token.string


def find_phrases(path: Path, root: Path = ROOT) -> list[str]:
    """Return a line for each phrase in a file: place, phrase and advice."""
    name = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    lines = []
    for start, part in python_texts(text) if path.suffix == ".py" else [(1, text)]:
        for pattern, advice in PHRASES.items():
            for match in re.finditer(pattern.replace(" ", r"\s+"), part, re.IGNORECASE):
                phrase = " ".join(match[0].split())
                if not {(name, "*"), (name, phrase.lower())} & ALLOWED:
                    lines.append(f"{name}:{start + part.count(chr(10), 0, match.start())}: {phrase!r}: write {advice}")
    return lines


def room_files() -> dict[str, list[Path]]:
    """Return the files to read: by room below src/selfsr, and all pages together."""
    source = ROOT / "src" / "selfsr"
    rooms: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix in {".py", ".yaml", ".html", ".js", ".css", ".j2"}:
            inside = path.relative_to(source).parts
            rooms.setdefault(inside[0] if len(inside) > 1 else ".", []).append(path)
    rooms["bench scripts"] = sorted((ROOT / "bench").rglob("*.py"))
    rooms["pages"] = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *(ROOT / "docs").rglob("*.yaml")]
    return rooms


@pytest.mark.parametrize("room", room_files())
def test_texts_use_words_of_the_field(room: str) -> None:
    lines = [line for path in room_files()[room] for line in find_phrases(path)]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It goes\non.", 1),
        ("a picture, too.", 2),
        ("the whole image", 1),
        ("nobody was told", 1),
        ("a whole number, too large", 0),
    ],
)
def test_find_phrases_counts_them(text: str, count: int, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}\n", encoding="utf-8")
    lines = find_phrases(page, tmp_path)
    assert len(lines) == count
    assert all(line.startswith("page.md:3: ") for line in lines)
