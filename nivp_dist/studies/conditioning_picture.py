"""The picture of the study of conditioning: residuals with and without refits, and what changes beside them."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = 5  # of the style, after which they repeat
SHOWN = {
    "theta": "|theta|",
    "dependence": "dependence of units",
    "imbalance": "imbalance of layers",
    "wavenumber": "wavenumber over band",
    "effective_dimension": "effective dimension",
}


def draw(records: dict[str, dict], figure: Figure) -> None:
    """Above for each problem the residual along the runs, below the numbers beside it, relative to their start."""
    figure.set_size_inches(11, 7)
    names = list(dict.fromkeys(record["problem"] for record in records.values()))
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in zip(axes.T, names):
        variants = {record["variant"]: record for record in records.values() if record["problem"] == name}
        _residuals(column[0], variants)
        column[0].set_title(name, fontsize=10)
        if "base" in variants:
            _numbers(column[1], variants["base"])
        column[1].set_xlabel("t")
    axes[0, 0].set_ylabel("relative residual on other points")
    axes[1, 0].set_ylabel("base: over its first value (each seed a line)")
    axes[0, 0].legend(fontsize=8, frameon=False)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)


def _residuals(axis: Axes, variants: dict[str, dict]) -> None:
    for i, (variant, record) in enumerate(variants.items()):
        main = variant in ("base", "refits")
        for seed, run in enumerate(record["runs"]):
            axis.plot(
                run["t"],
                run["residual"],
                color=f"C{i % COLOURS}",
                linestyle="-" if i < COLOURS else ":",
                linewidth=1.8 if main else 0.8,
                alpha=0.9 if main else 0.6,
                label=variant.replace("_", " ") if seed == 0 else None,
            )
    axis.set_yscale("log")


def _numbers(axis: Axes, record: dict) -> None:
    for i, (measure, title) in enumerate(SHOWN.items()):
        for seed, run in enumerate(record["runs"]):
            relative = [value / run[measure][0] for value in run[measure]]
            axis.plot(run["t"], relative, color=f"C{i}", linewidth=1.2, label=title if seed == 0 else None)
    axis.set_yscale("log")
