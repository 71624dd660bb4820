"""The documents of the project, README and guide, and their fenced blocks and code spans."""

import re
from pathlib import Path
from typing import NamedTuple

from nivp_dist import guide

ROOT = Path(__file__).resolve().parents[1]  # the checkout; the package itself may be installed elsewhere
DOCUMENTS = {"README": ROOT / "README.md"} | {
    topic: Path(guide.__file__).resolve().parent / f"{topic}.md" for topic in guide.TOPICS
}
_FENCE = re.compile(r"^(?:<!-- file: (\S+) -->\n)?```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block. mark: a word after the language, such as "fails". file: the name that it is to be saved under."""

    file: str | None
    language: str
    mark: str | None
    body: str
    place: str  # document and line

    def commands(self) -> list[str]:
        return [line for line in self.body.splitlines() if line]


def content(document: str) -> str:
    return DOCUMENTS[document].read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """The fenced blocks in order."""
    text = content(document)
    found = [(match.groups(), text[: match.start()].count("\n") + 1) for match in _FENCE.finditer(text)]
    assert len(found) == len(re.findall(r"^```\w", text, re.MULTILINE)), f"{document}: a block that is not closed"
    return [Block(*groups, f"{document}, line {line}") for groups, line in found]


def spans(document: str) -> list[str]:
    """The code spans outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", content(document)))


def table(document: str, marker: str) -> list[list[str]]:
    """The cells of the rows of the table below the comment `<!-- marker -->`, without its head."""
    _, _, rest = content(document).partition(f"<!-- {marker} -->\n")
    lines = re.match(r"(?:\|.*\|\n)+", rest)
    assert lines, f"{document}: no table below {marker}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]
