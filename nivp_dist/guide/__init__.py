"""The manual: one Markdown file for each topic, shipped with the package and printed by `nivp guide [TOPIC]`."""

import re
from pathlib import Path

from nivp_dist.errors import InputError
from nivp_dist.settings.keys import nearest

TOPICS = (
    "first_problem",
    "examples",
    "settings",
    "method",
    "accuracy",
    "cluster",
    "speed",
    "studies",
    "python",
    "files",
    "developing",
)  # in the order of a first reading


def text(topic: str) -> str:
    """The Markdown text of a topic, without the HTML comments that tests and tools look for.

    Raises InputError for an unknown topic; the message names the nearest one.
    """
    if topic not in TOPICS:
        close = nearest(topic, TOPICS)
        mend = f"the nearest is {close}" if close else f"the topics are {', '.join(TOPICS)}"
        raise InputError(f"guide: there is no topic '{topic}'; {mend}")
    content = (Path(__file__).parent / f"{topic}.md").read_text(encoding="utf-8")
    return re.sub(r"^<!--.*?-->\n", "", content, flags=re.MULTILINE)


def summaries() -> dict[str, str]:
    """Topic -> its first sentence: what one learns there."""
    return {topic: _first_sentence(text(topic)) for topic in TOPICS}


def _first_sentence(content: str) -> str:
    """The first sentence of the first paragraph after the title, on one line."""
    paragraph = content.split("\n\n")[1]
    return re.split(r"(?<=\.) ", " ".join(paragraph.split()))[0]
