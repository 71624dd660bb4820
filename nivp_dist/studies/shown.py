"""What a study shows: its tables as text or Markdown, its JSON file, its picture."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure

from nivp_dist.report.style import style
from nivp_dist.report.tables import aligned
from nivp_dist.storage.files import write_whole
from nivp_dist.studies import measurements
from nivp_dist.studies.measurements import Directory
from nivp_dist.studies.picture import DOTS_PER_INCH
from nivp_dist.studies.study import FAILED, Table


def lines(directory: Directory, as_markdown: bool) -> list[str]:
    """The question, the tables, the answer, and the cases that failed."""
    study, records = directory.study, directory.records()
    known = measurements.measured(records)
    shown = [study.question, ""]
    if known:
        for table in study.tables(known):
            shown += [*_table(table, as_markdown), ""]
        shown += study.answer(known)
    return shown + [f"{name}: failed: {record[FAILED]}" for name, record in records.items() if FAILED in record]


def _table(table: Table, as_markdown: bool) -> list[str]:
    if not as_markdown:
        return [table.title, *(f"  {line}" for line in aligned(table.rows))]
    head, *rows = (f"| {' | '.join(row)} |" for row in table.rows)
    return [table.title, "", head, "|" + " --- |" * len(table.rows[0]), *rows]


def write_json(directory: Directory) -> Path:
    """NAME.json in the directory: the question, the machine, the records, the tables, the answer."""
    study, records = directory.study, directory.records()
    known = measurements.measured(records)
    head = json.loads((directory.path / measurements.HEAD).read_bytes())
    found = (
        {"tables": [table._asdict() for table in study.tables(known)], "answer": study.answer(known)} if known else {}
    )
    path = directory.path / f"{study.name}.json"
    whole = head | {"question": study.question, "records": records} | found
    write_whole(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")
    return path


def draw(directory: Directory) -> Path | None:
    """NAME.png in the directory; None, and no picture, where every case failed."""
    known = measurements.measured(directory.records())
    if not known:
        return None
    path, buffer = directory.path / f"{directory.study.name}.png", io.BytesIO()
    with style(None):
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        directory.study.draw(known, figure)
        figure.savefig(buffer, dpi=DOTS_PER_INCH)
    write_whole(path, buffer.getvalue())
    return path
