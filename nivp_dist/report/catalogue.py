"""What is shipped, as tables: the problems, and the configurations with their times and errors (`nivp problems`)."""

from pathlib import Path

from rich.table import Table

from nivp_dist.problems import registry
from nivp_dist.problems.base import has_reference
from nivp_dist.settings.files import describe_config, read_config


def problems() -> Table:
    """A row for each shipped problem."""
    table = _table("Problems (problem.name)", "name d outputs equation reference")
    for row in registry.catalogue():
        table.add_row(row.name, str(row.dimension), str(row.outputs), row.summary, row.reference)
    return table


def configurations(files: dict[str, Path]) -> Table:
    """A row for each configuration, name -> file. Time and error are those in the comments at the top of the file."""
    table = _table("Configurations (nivp run NAME), with times on one core", "name d time error what reference")
    references = {row.name: row.reference for row in registry.catalogue()}
    for name, path in files.items():
        settings, comments = read_config(path).problem, describe_config(path)
        problem = registry.load(settings)
        reference = references.get(settings.name or "", "yes") if has_reference(problem) else "none"
        dimension = str(problem.domain.dimension)
        time = comments.time.removesuffix(" on one core")
        table.add_row(name, dimension, time, comments.error, comments.what, reference)
    return table


def _table(title: str, columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns.split():
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "d"))
    return table
