"""The score sheet as data: the configurations, the times to which they are run, and the bounds on their errors.

`nivp bench accuracy` prints with every row the command that reproduces it. Rows with the same settings share a run.
"""

import dataclasses
from typing import Literal

CPU, LONGER, LONGEST, SHORT, SHORTEST = 10, 15, 20, 5, 2  # minutes on two cores


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the score sheet.

    Attributes:
        name: selects the row on the command line; also the name of its run directory.
        problem: the name in the table.
        configuration: the name of a shipped configuration.
        must, goal: bounds on the relative error at the end, or None. The project requires the first and aims at the
            second.
        minutes: the wall time within which the run must end, on two cores.
        t: the end of the run; None: that of the configuration.
        settings: further keys and values for the command line.
        score: the kind of error. relative_l2 is what the run reports itself at its end, largest the largest of what it
            reports at its outputs; sampled is taken on samples of the problem (``bench.scores``).
        limit: minutes after which the run is stopped; None: a multiple of `minutes`.
    """

    name: str
    problem: str
    configuration: str
    must: float | None
    goal: float | None
    minutes: float
    t: float | None = None
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    score: Literal["relative_l2", "largest", "sampled"] = "relative_l2"
    limit: float | None = None

    @property
    def overrides(self) -> dict[str, str]:
        """Keys and values that the command line adds to the configuration."""
        return ({} if self.t is None else {"integrator.t_end": f"{self.t:g}"}) | self.settings


def _modulated(kappa: int) -> Row:
    must = 5e-2 if kappa <= 4 else None
    settings = {"problem.parameters.wavenumber": f"{kappa}.0"}
    name, problem = f"wave_2d_modulated_{kappa}", f"wave 2d, modulated, kappa = {kappa}"
    return Row(name, problem, "wave_2d_modulated", must, 1e-2, CPU, settings=settings)


def _wave_maps(coordinates: str) -> Row:
    settings = {"problem.parameters.coordinates": coordinates}
    problem = f"wave maps 3d, {coordinates}"
    return Row(f"wave_maps_3d_{coordinates}", problem, "wave_maps_3d", 5e-2, 1e-2, CPU, t=0.36, settings=settings)


ROWS = (
    Row("advection_2d", "advection 2d", "advection_2d", 1e-3, 2e-4, SHORTEST, t=0.5),
    Row("heat_2d", "heat 2d", "heat_2d", 1e-3, 1e-4, SHORTEST, t=1.0),
    Row("wave_2d", "wave 2d, past the first reflection", "wave_2d", 3e-2, 3e-3, CPU, t=4.0),
    Row("wave_2d_long", "wave 2d, over three crossings", "wave_2d_long", None, None, LONGEST, t=20.0),
    Row("wave_3d", "wave 3d", "wave_3d", 3e-2, 5e-3, LONGEST, t=0.8),
    *map(_modulated, (1, 2, 4, 8)),
    *map(_wave_maps, ("schwarzschild", "kerr_schild")),
    Row("vlasov_6d", "Vlasov 6d", "vlasov_6d", 1e-1, 2e-2, LONGER, t=3.0),
    Row("trap_5d", "Fokker-Planck trap, d = 5", "fokker_planck_trap_5d", 5e-3, 1e-3, SHORT, t=1.0),
    Row("trap_5d_long", "Fokker-Planck trap, d = 5, to equilibrium", "fokker_planck_trap_5d", 5e-3, 1e-3, SHORT, t=5.0),
    Row("trap_8d", "Fokker-Planck trap, d = 8", "fokker_planck_trap_8d", 3e-2, 5e-3, LONGER, t=1.0),
    Row("trap_20d", "Fokker-Planck trap, d = 20", "fokker_planck_trap_20d", 3e-2, 5e-3, LONGER, t=1.0),
    Row("moving_trap_8d", "moving trap, d = 8", "moving_trap_8d", 3e-2, 5e-3, LONGER, t=8.0),
    *(
        Row(
            f"mixture_{d}d", f"linear Fokker-Planck, mixture, d = {d}", f"linear_fokker_planck_{d}d", 3e-2, 5e-3, LONGER
        )
        for d in (8, 20, 50)
    ),
    *(
        Row(f"double_well_{d}d", f"rotated double well, d = {d}", f"double_well_{d}d", 1e-1, 2e-2, LONGER)
        for d in (5, 10)
    ),
    # The unknown is log u in a box. The run takes its error on uniform points, the second row under the density.
    Row("log_9d_uniform", "log Fokker-Planck 9d, uniform points", "log_fokker_planck_9d", 1e-4, 1e-5, CPU, t=1.0),
    Row(
        "log_9d_density", "the same under the density", "log_fokker_planck_9d", 1e-4, 1e-5, CPU, t=1.0, score="sampled"
    ),
    Row("allen_cahn_1d", "Allen-Cahn 1d", "allen_cahn_1d", 1.6e-5, 1e-6, SHORT),
    Row("burgers_1d", "Burgers 1d", "burgers_1d", 6e-5, 1e-6, SHORT),
    Row("heat_periodic_2d", "heat 2d, periodic", "heat_periodic_2d", 1e-4, 1e-6, LONGEST, t=4.0),
    Row("allen_cahn_2d", "Allen-Cahn 2d, periodic", "allen_cahn_periodic_2d", 1e-4, 1e-6, LONGEST, t=4.0),
    Row("burgers_2d", "Burgers 2d, periodic", "burgers_periodic_2d", 1e-4, 1e-6, LONGEST, t=4.0),
    Row("fisher_kpp_5d", "Fisher-KPP front, d = 5", "fisher_kpp_5d", 1e-2, 1e-3, CPU),
    Row("burgers_5d", "viscous Burgers in x.1, d = 5", "burgers_front_5d", 1e-2, 1e-3, CPU),
    Row("advection_5d", "time-varying advection, d = 5", "time_varying_advection_5d", 1e-2, 1e-3, CPU),
    Row("kuramoto_1d", "Kuramoto-Sivashinsky 1d", "kuramoto_sivashinsky_1d", 3e-4, 1e-4, SHORT),
    Row("kuramoto_long_1d", "Kuramoto-Sivashinsky 1d, 32 pi", "kuramoto_sivashinsky_long_1d", 1e-3, 3e-4, SHORT),
    Row("kdv_1d", "Korteweg-de Vries 1d, two solitons", "kdv_1d", 3e-4, 1e-4, SHORT),
    Row("heat_stiff_2d", "heat 2d, stiff", "heat_stiff_2d", 1e-4, 2e-5, SHORT),
    Row("allen_cahn_sharp_1d", "Allen-Cahn 1d, sharp interfaces", "allen_cahn_sharp_1d", 1e-4, 1e-5, SHORT),
    # From accuracy = 1e-3 and the physics alone.
    Row("schroedinger_1d", "nonlinear Schroedinger 1d", "nonlinear_schroedinger_1d", 1e-3, 1e-4, SHORT),
    Row("heat_neumann_2d", "heat 2d, insulated walls", "heat_neumann_2d", 1e-3, 1e-4, SHORT),
    Row("thermal_waves_2d", "heat 2d, Dirichlet and Robin data in time", "thermal_waves_2d", 1e-3, 1e-4, SHORT),
    Row("burgers_walls_2d", "Burgers 2d, a front through walls", "burgers_front_walls_2d", 1e-3, 1e-4, SHORT),
    Row("channel_2d", "advection and diffusion in a channel", "channel_2d", 1e-3, 1e-4, SHORT),
    Row("landau_2d", "Vlasov-Poisson, Landau damping", "landau_damping_2d", 5e-3, 1e-3, SHORT),
)
