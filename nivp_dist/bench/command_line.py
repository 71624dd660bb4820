"""`nivp bench`: the options of the measurements. Importing this module does not import jax."""

import os
from pathlib import Path

import click

from nivp_dist.errors import FAILED, FINISHED, InputError
from nivp_dist.settings.files import read_config


@click.group()
def bench():
    """Measure the package on this machine, side by side with the published method."""


@bench.command(epilog="Example: nivp bench speed products laplacian --quick --output speed.json")
@click.argument("sections", nargs=-1)
@click.option("--output", metavar="FILE", help="A new JSON file, kept up to date; of gpu: a line for a measurement.")
@click.option("--quick", is_flag=True, help="Small sizes: a minute or two. gpu: always without a GPU.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="gpu: how long it may take. Default: 13.")
@click.option("--profile", metavar="FOLDER", help="gpu: folder for a profile. Default: trace.")
def speed(sections, output, quick, minutes, profile):
    """Time SECTIONS: products velocity precision fit end_to_end scaling cost_model laplacian (default: all).

    The section gpu is measured alone: it prints what a GPU computes, and how fast, as lines of JSON, and ends within
    the given time. Exit status: 1 if a measurement failed or was left out.
    """
    if "gpu" in sections:
        return _gpu(sections, output, quick, minutes, profile)
    if minutes is not None or profile is not None:
        raise InputError("bench speed: --minutes and --profile are for the section gpu alone")

    from nivp_dist.bench import speed

    speed.run(sections, output, quick, click.echo)


def _gpu(sections, output, quick, minutes, profile) -> int:
    if len(sections) > 1:
        raise InputError("bench speed: the section gpu is measured alone, without others: nivp bench speed gpu")

    from nivp_dist.bench.gpu import stages

    options = stages.Options(
        minutes or stages.MINUTES, Path(profile or "trace"), quick, Path(output) if output else None
    )
    screen = stages.Screen(click.echo, lambda line: click.echo(line, err=True))
    return FINISHED if stages.run(options, screen) else FAILED


@bench.command(epilog="Example: nivp bench accuracy 'wave*' heat_2d --output sheet")
@click.argument("names", nargs=-1)
@click.option(
    "--output", metavar="DIR", default="accuracy", help="Runs and accuracy.json; finished runs there are read."
)
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
@click.option("--list", "list_", is_flag=True, help="Print the rows with their commands; run nothing.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Runs of every row. Default: 1.")
def accuracy(names, output, markdown, list_, seeds):
    """Run the rows of the score sheet called NAMES (default: all) and print their errors beside the bounds.

    With several seeds the error is their median, and the worst stands beside it.
    """
    from nivp_dist.bench import accuracy, score_sheet

    if list_:
        for row in accuracy.select(names):
            click.echo(f"{row.name}: {accuracy.command(row)}")
        return FINISHED
    sheet = accuracy.run(names, output, click.echo, seeds=seeds)
    for line in score_sheet.markdown(sheet) if markdown else score_sheet.lines(sheet):
        click.echo(line)
    return FAILED if any(row["failed"] for row in sheet["rows"]) else FINISHED


@bench.command(epilog="Example: nivp bench held heat_2d 'burgers*' --accuracy 1e-2 --accuracy 1e-3 --minutes 5")
@click.argument("names", nargs=-1)
@click.option(
    "--accuracy",
    "accuracies",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    metavar="A",
    help="An accuracy to ask for, and another one. Default: 1e-2, 1e-3 and 1e-4.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Runs of every case. Default: 1.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="M",
    help="Wall time after which a run is stopped. Default: 10.",
)
@click.option("--output", metavar="DIR", default="held", help="Runs and accuracy.json; finished runs there are read.")
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
def held(names, accuracies, seeds, minutes, output, markdown):
    """Run the problems of the score sheet called NAMES (default: all) with `accuracy` and their physics alone.

    The table has the largest error at any output over the accuracy asked for. A run that fails or is stopped by
    --minutes is a finding; the next call goes on with it where there is time left.
    """
    from nivp_dist.bench import held

    asked = tuple(dict.fromkeys(accuracies)) or held.ACCURACIES
    sheet = held.run(names, output, click.echo, asked, minutes or held.MINUTES, seeds)
    for line in held.markdown(sheet) if markdown else held.lines(sheet):
        click.echo(line)


@bench.command(epilog="Example: nivp bench faults --number 24 metrics kill --seed 3")
@click.argument("kinds", nargs=-1)
@click.option(
    "--number", type=click.IntRange(1), default=100, help="How many faults, of the KINDS in turn. Default: 100."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Decides all moments and victims. Default: 0.")
@click.option("--output", metavar="FILE", help="A new file that gets a line of JSON for each fault.")
@click.option("--list", "list_", is_flag=True, help="Print the kinds; inject nothing.")
def faults(kinds, number, seed, output, list_):
    """Damage files and kill processes of a tiny run, and compare what becomes of it with the undisturbed run.

    KINDS are the kinds of faults (default: all), or KIND:NUMBER to repeat a single one.
    """
    from nivp_dist.bench.faults import table

    if list_:
        for line in table.list_of_kinds():
            click.echo(line)
        return FINISHED
    return FINISHED if table.run(number, seed, kinds, output, click.echo) else FAILED


def check_for_gpus(gpu: str, count: int, source: str, overrides: dict[str, str]) -> int:
    """`nivp doctor --compile-for`: the programs of a configuration for so many GPUs, line by line; the exit code."""
    config = read_config(source, overrides)
    os.environ["JAX_PLATFORMS"] = "cpu"  # before jax starts: a GPU that happens to be here stays free

    from nivp_dist.bench import compile_check

    report = compile_check.examine(config, gpu, count, lambda program: click.echo(compile_check.line(program)))
    for line in compile_check.lines(report):
        click.echo(line)
    return FAILED if report.problems else FINISHED
