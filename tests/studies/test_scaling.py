"""The study of scaling: slopes and answers of made-up records, in both directions."""

import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import scaling

SIZES = (110, 1030, 3000, 10_000)


def made_up(pcg: float, primal: float, sizes=SIZES) -> dict:
    """Records in which everything of a solver grows as a power of p: `pcg`, and `primal`, and p^0.5 for the others."""
    powers = {"pcg": pcg, "dual_pcg": 0.5, "dual": 0.5, "primal": primal}
    return {
        f"width-{p}": {
            "p": p,
            "n": 1000,
            "solvers": {
                method: {
                    "seconds_velocity": 1e-5 * p**power,
                    "seconds_step": 1e-4 * p**power,
                    "bytes": round(1e3 * p**power),
                    "needed": [30, 40, None],
                }
                for method, power in powers.items()
            },
        }
        for p in sizes
    }


def test_slopes_are_those_of_the_last_decade():
    records = made_up(1.0, 3.0)
    records["width-110"]["solvers"]["pcg"]["seconds_velocity"] = 1.0  # before the last decade
    rows = {row[0]: row[1:] for row in scaling.slopes(records).rows}
    assert rows["pcg"] == ["1,030", "10,000", "1.00", "1.00", "1.00"]
    assert rows["primal"][2:] == ["3.00"] * 3 and rows["dual"][2:] == ["0.50"] * 3


@pytest.mark.parametrize(("power", "verdict"), [(1.0, "not faster than p"), (1.4, "faster than p")])
def test_the_answer_follows_the_numbers(power, verdict):
    pcg, *_, primal = scaling.answer(made_up(power, 2.5))
    assert pcg == (
        f"pcg: from p = 1,030 to 10,000 a velocity of 25 iterations takes time as p^{power:.2f} and memory as "
        f"p^{power:.2f}, {verdict}."
    )
    # 8.95e8 operations at p = 1,030 and 3.83e11 at 10,000: log(428) / log(9.71) = 2.67
    assert "takes time as p^2.50, where its operations n p^2 / 2 + p^3 / 3 grow as p^2.67;" in primal
    assert "dual_pcg 1e+08" in primal


def test_what_has_one_size_in_its_last_decade_is_open():
    said = scaling.answer(made_up(1.0, 3.0, sizes=(110, 10_000)))
    assert all("open" in sentence for sentence in said) and len(said) == 4


def test_the_table_tells_what_was_not_reached():
    table, _ = scaling.tables(made_up(1.0, 3.0))
    assert len(table.rows) == 1 + 4 * len(SIZES)
    assert table.rows[4][:2] == ["110", "primal"] and table.rows[3][-1] == "30, 40, over 1000"


def test_the_picture_has_a_curve_for_each_solver():
    figure = Figure()
    scaling.draw(made_up(1.0, 3.0), figure)
    assert [axis.get_xscale() for axis in figure.axes] == ["log"] * 3
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["dual", "pcg", "dual_pcg", "primal", "p^1", "p^3"]
