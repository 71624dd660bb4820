"""Checks of a problem before anything large is compiled: each mistake raises a message of one line."""

import re

import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import checks, registry
from nivp_dist.settings.model import ProblemSettings

PARTS = {
    "head": "outputs = 1",
    "domain": "@property\n    def domain(self):\n        return Box(2)",
    "initial": "def initial(self, x):\n        return jnp.prod(1 - x**2)",
    "rhs": "def rhs(self, u, x, t):\n        return laplacian(u, x)",
    "more": "",
}
IMPORTS = "import jax, jax.numpy as jnp\nimport numpy as np\nfrom nivp_dist.problems import *\n\n"


@pytest.fixture
def check(tmp_path):
    """Check class Mine made of PARTS, some replaced; returns the warnings."""

    def check(**parts):
        path = tmp_path / "mine.py"
        path.write_text(IMPORTS + "class Mine(Problem):\n    " + "\n    ".join((PARTS | parts).values()) + "\n")
        return checks.check(registry.load(ProblemSettings(file=str(path), class_="Mine")), "mine.toml")

    return check


STILL = "def drift(self, x, t):\n        return 0.0 * x\n    "
SPREADING = STILL + "def noise(self, t):\n        return np.sqrt(2) * np.eye(2)"
SINE = "@property\n    def domain(self):\n        return PeriodicBox(2, 0, 2)"
OPEN = "@property\n    def domain(self):\n        return OpenBox(2)"
NEUMANN = "@property\n    def domain(self):\n        return Axes(Open(0, 1), Neumann(0, 1))"
GROWING = "def initial(self, x):\n        return jnp.exp(x[0])"
FIRST_OF_PAIR = "def reference(self, x, t):\n        return np.prod(1 - x**2, axis=1)"
PAIR = "def initial(self, x):\n        return jnp.prod(1 - x**2) * jnp.array([1.0, 0.0])"


# Diffusion in an OpenBox: their solutions are the smooth continuations.
SEEN_THROUGH_A_WINDOW = ("burgers_front", "fisher_kpp", "log_fokker_planck")


@pytest.mark.parametrize("name", registry.SHIPPED)
def test_every_shipped_problem_passes(name):
    warnings = checks.check(registry.load(ProblemSettings(name=name)), name)
    assert len(warnings) == (name in SEEN_THROUGH_A_WINDOW) and all("which is Open" in line for line in warnings)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"head": "outputs = 2", "initial": PAIR},
        {"domain": SINE, "initial": "def initial(self, x):\n        return jnp.sin(np.pi * x[0])"},
        {
            "domain": OPEN,
            "initial": GROWING,
            "rhs": "def rhs(self, u, x, t):\n        return -u(x) * gradient(u, x)[0]",
        },
        {
            "domain": NEUMANN,
            "initial": "def initial(self, x):\n        return jnp.exp(x[0]) * jnp.cos(np.pi * x[1])",
            "rhs": "def rhs(self, u, x, t):\n        return jax.hessian(u)(x)[1, 1] - jnp.sum(gradient(u, x) ** 2)",
        },
        {"rhs": "def rhs(self, u, x, t):\n        return 0.0"},
        {"more": "def reference(self, x, t):\n        return np.prod(1 - x**2, axis=1, keepdims=True)"},
        {"head": "outputs = 2", "initial": PAIR, "more": FIRST_OF_PAIR},
        {"head": "outputs = 2\n    output_names = ('u', 'v')", "initial": PAIR},
        {"more": "def invariants(self, u, x):\n        return {'mass': u(x), 'slope': jnp.sum(gradient(u, x) ** 2)}"},
        {"initial": "def initial(self, x):\n        return jnp.exp(-1e5 * jnp.sum((x - 0.3) ** 2))"},
        {"more": SPREADING},
    ],
    ids=[
        "plain",
        "two outputs",
        "periodic",
        "open, of first order",
        "open, of first order along this axis",
        "nothing happens",
        "reference",
        "reference of the first output",
        "output names",
        "invariants",
        "so narrow that every value is 0",
        "drift and noise",
    ],
)
def test_correct_problems_pass(check, parts):
    assert check(**parts) == []


NARROW = "jnp.exp(-1e3 * jnp.sum((x - 0.3) ** 2))"


@pytest.mark.parametrize(
    "rhs, axis",
    [
        ("1e-6 * laplacian(u, x) + u(x) ** 2 - gradient(u, x)[1]", 0),
        ("u(x) * jax.hessian(u)(x)[1, 1]", 1),
        ("-jax.grad(lambda s: laplacian(u, x + s * jnp.array([1.0, 0.0])))(0.0)", 0),  # dispersion
    ],
)
def test_what_enters_through_open_ends_is_said_to_be_unknown(check, rhs, axis):
    (warning,) = check(domain=OPEN, initial=GROWING, rhs=f"def rhs(self, u, x, t):\n        return {rhs}")
    assert f"Mine.rhs has derivatives of second or higher order along axis {axis}, which is Open: " in warning


@pytest.mark.parametrize(
    "parts, line",
    [
        (
            {"more": "def reference(self, x, t):\n        return 2 * np.prod(1 - x**2, axis=1)"},
            r"mine\.toml: Mine\.reference\(x, t = 0\) differs from Mine\.initial\(x\) by 1 in u at "
            r"x = \[.*\] \(max \|u0\| = 1\): correct one of them, or the errors that the run reports are wrong",
        ),
        (
            {"head": "outputs = 2", "initial": PAIR, "more": "def reference(self, x, t):\n        return 0 * x"},
            ".* in u_1 .*",
        ),
        # Few points of the domain lie in the pulse, and the comparison is made at those.
        (
            {
                "initial": f"def initial(self, x):\n        return {NARROW}",
                "more": f"def reference(self, x, t):\n        return 1.01 * np.array([{NARROW} for x in x])",
            },
            r".* by 0\.009\d* in u .*",
        ),
    ],
)
def test_a_reference_that_is_not_the_initial_condition_at_time_0_gives_a_warning(check, parts, line):
    (warning,) = check(**parts)
    assert re.fullmatch(line, warning)


@pytest.mark.parametrize(
    "parts, line",
    [
        ({"head": "outputs = 0"}, "mine.toml: Mine.outputs must be a whole number of at least 1, got 0"),
        (
            {"head": "outputs = 2\n    output_names = ('u',) * 3", "initial": PAIR},
            "mine.toml: Mine.output_names must be a tuple of one name for each output (outputs = 2), "
            "got ('u', 'u', 'u')",
        ),
        (
            {"head": "output_names = 'v'"},
            "mine.toml: Mine.output_names must be a tuple of one name for each output (outputs = 1), got 'v'",
        ),
        (
            {"domain": "def domain(self):\n        return Box(2)"},
            "mine.toml: Mine.domain must be a Box, PeriodicBox, OpenBox, WholeSpace or Axes, got method; "
            "put @property above it",
        ),
        (
            {"domain": "@property\n    def domain(self):\n        return Box(2, 1, -1)"},
            "{file}:9: Mine.domain: ValueError: lower must be below upper on every axis, got lower = 1, upper = -1",
        ),
        (
            {"initial": "def initial(self, x):\n        return 1 - x**2"},
            "mine.toml: Mine.initial(x) must have shape () (outputs = 1), got (2,)",
        ),
        (
            {"more": "def energy(self, u, x):\n        return u(x)"},
            "mine.toml: Mine.energy(u, x) must have shape (k,), got ()",
        ),
        (
            {"more": "def invariants(self, u, x):\n        return u(x)"},
            "mine.toml: Mine.invariants(u, x) must return a dictionary, name -> density at x",
        ),
        (
            {"more": "def invariants(self, u, x):\n        return {'flux': gradient(u, x)}"},
            "mine.toml: Mine.invariants(u, x)['flux'] must be a scalar, got (2,)",
        ),
        ({"head": "outputs = 2"}, "mine.toml: Mine.initial(x) must have shape (2,) (outputs = 2), got ()"),
        (
            {"more": "def drift(self, x, t):\n        return x[0]"},
            "mine.toml: Mine.drift(x, t) must have shape (2,), got ()",
        ),
        (
            {"more": STILL + "def noise(self, t):\n        return jnp.ones(2)"},
            "mine.toml: Mine.noise(t) must have shape (2, k), got (2,)",
        ),
        (
            {"head": "outputs = 2", "initial": "def initial(self, x):\n        return x[0], x[1]"},
            "mine.toml: Mine.initial(x) must return one array, not a tuple; stack its parts with jnp.stack",
        ),
        (
            {"initial": "def initial(self, x):\n        return jnp.prod(1 - x**2) * 1j"},
            "mine.toml: Mine.initial(x) must be real, got complex128",
        ),
        (
            {"initial": "def initial(self, x):\n        return np.sin(float(x[0]))"},
            None,
        ),
        (
            {"initial": "def initial(self, x):\n        return jnp.cos(x[0]) * (1 - x[1] ** 2)"},
            "mine.toml: Mine.initial(x) must vanish on the walls: |u0| = 0.54 at x[0] = -1 (max |u0| = 1)",
        ),
        (
            {"domain": SINE, "initial": "def initial(self, x):\n        return jnp.sin(np.pi * x[0] / 4)"},
            "mine.toml: Mine.initial(x) is not periodic in x[0]: it jumps by 1 (max |u0| = 1)",
        ),
        (
            {"domain": NEUMANN, "initial": "def initial(self, x):\n        return x[1]"},
            "mine.toml: Mine.initial(x) must have zero slope on Neumann walls: |du0/dx| = 1 at x[1] = 0 (max |u0| = 1)",
        ),
        (
            {"domain": NEUMANN.replace("Neumann(0, 1)", "Neumann(1, 1)")},
            "{file}:9: Mine.domain: ValueError: Neumann(1, 1): lower must be below upper, and both finite numbers",
        ),
        (
            {"domain": NEUMANN.replace("Neumann(0, 1)", "3")},
            "{file}:9: Mine.domain: ValueError: Axes: axis 1 must be a Wall, Neumann, Robin, Periodic, Open or Real, "
            "such as Wall(0, 1), got 3; a list of axes is given as Axes(*axes)",
        ),
        (
            {"rhs": "def rhs(self, u, x, t):\n        return x * u(x)"},
            "mine.toml: Mine.rhs(u, x, t) must have shape () (outputs = 1), got (2,)",
        ),
        (
            {"rhs": "def rhs(self, u, x, t):\n        return lapalcian(u, x)"},
            "{file}:13: Mine.rhs(u, x, t): NameError: name 'lapalcian' is not defined",
        ),
        (
            {"rhs": "def rhs(self, u, x):\n        return laplacian(u, x)"},
            "mine.toml: Mine.rhs(u, x, t): TypeError: Mine.rhs() takes 3 positional arguments but 4 were given",
        ),
        (
            {"more": "def reference(self, x, t):\n        return np.zeros((len(x), 3))"},
            "mine.toml: Mine.reference(x, t) must have shape (n,) or (n, k), k <= 1, got (64, 3) for n = 64",
        ),
        (
            {"more": "def reference(self, x, t):\n        return x[:, 7]"},
            "{file}:15: Mine.reference(x, t): IndexError: index 7 is out of bounds for axis 1 with size 2",
        ),
        (
            {"more": "def reference(self, x, t):\n        return np.full(len(x), np.nan)"},
            None,
        ),
    ],
)
def test_each_mistake_raises_a_message_of_one_line(check, tmp_path, parts, line):
    with pytest.raises(InputError) as caught:
        check(**parts)
    found = str(caught.value)
    assert "\n" not in found
    if line is not None:
        assert found == line.format(file=tmp_path / "mine.py")
    elif "initial" in parts:
        assert found.startswith(f"{tmp_path}/mine.py:11: Mine.initial(x): ConcretizationTypeError: ")
        assert found.endswith("; write it with jax.numpy, without float(), if or numpy on x, t or u")
    else:
        assert found.startswith("mine.toml: Mine.reference(x, t) at t = 0 is not finite at 64 of 64 points, such as x")


@pytest.mark.parametrize("term, linear", [("x[0] * u(x)", True), ("u(x) ** 2", False), ("1.0", False)])
def test_declared_linearity_is_checked(check, term, linear):
    """A reaction and a source are found; with linear = False they are nobody's business."""
    rhs = f"def rhs(self, u, x, t):\n        return 0.1 * laplacian(u, x) + {term}"
    check(rhs=rhs)
    if linear:
        check(head="linear = True", rhs=rhs)
        return
    with pytest.raises(InputError) as caught:
        check(head="linear = True", rhs=rhs)
    found = str(caught.value)
    assert found.startswith("mine.toml: Mine.linear = True, but rhs(u + v) differs from rhs(u) + rhs(v) by ")
    assert found.endswith("): set it to False") and "\n" not in found


def test_an_energy_that_is_not_linear_is_a_mistake(check):
    check(more="def energy(self, u, x):\n        return jnp.append(gradient(u, x), u(x))")
    found = "mine.toml: Mine.energy(u, x) must be linear in u: e(u + v) differs from e(u) + e(v) by "
    with pytest.raises(InputError, match=re.escape(found)):
        check(more="def energy(self, u, x):\n        return jnp.stack([u(x), u(x) ** 2])")


MASS = "def integrals(self, u, x, t):\n        return {}\n    "
LIMITED = "def rhs(self, u, x, t, integrals):\n        return u(x) * (1 - integrals[0])"
RULE = "def quadrature(self):\n        return np.zeros({}), np.full(9, 4 / 9)"


def test_integrals_and_their_nodes(check):
    check(rhs=LIMITED, more=MASS.format("u(x)[None]") + RULE.format((9, 2)))
    for parts, found in (
        ({"more": MASS.format("u(x)")}, "integrals(u, x, t) must have shape (k,), got (); stack its parts"),
        ({"more": MASS.format("u(x)[None] / 0")}, "integrals(u, x, t) of u0 has integrals that are not finite: [inf]"),
        (
            {"more": MASS.format("u(x)[None]") + RULE.format((9, 3))},
            "quadrature() must return nodes (q, 2) and weights (q,), got (9, 3) and (9,)",
        ),
    ):
        with pytest.raises(InputError, match=f"^mine.toml: Mine.{re.escape(found)}"):
            check(rhs=LIMITED, **parts)
    with pytest.raises(InputError, match=r"Mine.quadrature\(\) is of no use without integrals"):
        check(more=RULE.format((9, 2)))
    with pytest.raises(InputError, match=r"Mine.rhs has a fourth argument, the integrals: define integrals"):
        check(rhs=LIMITED)
    with pytest.raises(InputError, match=r"Mine.rhs must take the integrals, too: rhs\(self, u, x, t, integrals\)$"):
        check(more=MASS.format("u(x)[None]"))


@pytest.mark.parametrize("noise", ["np.eye(2)", "t * np.sqrt(2) * jnp.eye(2)"])
def test_drift_and_noise_are_compared_with_the_equation(check, noise):
    with pytest.raises(InputError) as caught:
        check(more=f"{STILL}def noise(self, t):\n        return {noise}")
    found = str(caught.value)
    assert found.startswith("mine.toml: Mine.drift and noise do not belong to rhs: ") and "\n" not in found
    assert found.endswith("): correct one of them")


DRIFT = "def rhs(self, u, x, t):\n        return gradient(u, x)[1]"


def test_declared_symmetry_is_checked(check):
    check(head="even = (0, 1)")
    check(head="even = (0,)", rhs=DRIFT)
    with pytest.raises(
        InputError, match=r"^mine.toml: Mine.even = \(0, 1\), but rhs.* is not even along axis 1: remove"
    ):
        check(head="even = (0, 1)", rhs=DRIFT)
    with pytest.raises(InputError, match=r"Mine.even = \(1,\), but initial\(x\) is not even along axis 1: remove"):
        check(head="even = (1,)", initial="def initial(self, x):\n        return jnp.prod(1 - x**2) * (2 + x[1])")
    for wrong in ("(2,)", "0"):
        found = f"Mine.even = {re.escape(wrong)} must be a tuple of axes that are bounded: 0, 1$"
        with pytest.raises(InputError, match=found):
            check(head=f"even = {wrong}")


ODD = "def initial(self, x):\n        return jnp.prod(1 - x**2) * jnp.array([1.0, x[0]])"


def test_declared_parities_are_checked(check):
    system = {"initial": ODD, "rhs": "def rhs(self, u, x, t):\n        return laplacian(u, x)"}
    check(head="outputs = 2\n    parities = {0: (1, -1)}", **system)
    for parities, line in (
        ("{0: (1, 1)}", r"parities\[0\] = \(1, 1\), but initial\(x\) has other signs along axis 0: correct them$"),
        ("{0: (1,)}", r"parities\[0\] = \(1,\) must be a tuple with a sign, 1 or -1, for each output"),
        ("{3: (1, 1)}", r"must be a dictionary whose keys are bounded axes: 0, 1$"),
        ("{0: 1}", r"parities\[0\] = 1 must be a tuple with a sign"),
        ("[0]", r"parities = \[0\] must be a dictionary whose keys are bounded axes"),
    ):
        with pytest.raises(InputError, match=line):
            check(head=f"outputs = 2\n    parities = {parities}", **system)


def test_robin_walls_are_checked(check):
    bar = "@property\n    def domain(self):\n        return Axes(Robin(0, 1, at_lower=0, at_upper=1), Open(0, 1))"
    check(domain=bar, initial="def initial(self, x):\n        return 1 - x[0] ** 2 / 3")
    with pytest.raises(InputError, match=r"must have du0/dn \+ 1 u0 = 0 on Robin walls: its size is .* at x\[0\] = 1"):
        check(domain=bar, initial="def initial(self, x):\n        return 1 - x[0] ** 2 / 2")
    with pytest.raises(InputError, match=r"ValueError: Robin\(0, 1\): at_upper must be a number or inf, got nan$"):
        check(domain=bar.replace("at_upper=1", "at_upper=jnp.nan"))


def test_a_value_that_is_not_finite_is_reported_with_its_point(check):
    with pytest.raises(InputError) as caught:
        check(rhs="def rhs(self, u, x, t):\n        return jnp.where(x[0] > 0, u(x), jnp.nan) / (1 - t)")
    found = str(caught.value)
    assert found.startswith("mine.toml: Mine.rhs(u, x, t) at t = 0 with u = initial is not finite at ")
    assert found.partition("such as x = [")[2].startswith("-")
    with pytest.raises(InputError, match="^mine.toml: Mine.initial.x. is not finite at 64 of 64 points"):
        check(initial="def initial(self, x):\n        return jnp.prod(1 - x**2) * jnp.inf")
