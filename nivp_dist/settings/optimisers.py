"""The optimisers that fits can use, by their names in optax. The list is here because no setting imports jax."""

import difflib

# Those that treat every parameter by itself and take a schedule as learning rate, with the default values of all other
# arguments. Left out are adafactor, fromage, lamb, lars, novograd and sm3, whose rules depend on the norms or shapes of
# layers, because the parameters of a network are one vector here; optimistic_adam and rprop, which take no schedule;
# noisy_sgd, which draws random numbers of its own; and lbfgs, which searches along lines and not on minibatches.
OPTIMISERS = (
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "lion",
    "nadam",
    "nadamw",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "signum",
    "yogi",
)


def known_optimiser(section: str, name: str | None) -> str | None:
    """The name of a known optimiser in lower case, or None.

    section: where it is set, for the message. Raises ValueError, one line with the names close to an unknown one.
    """
    if name is None or name.lower() in OPTIMISERS:
        return name and name.lower()
    close = difflib.get_close_matches(name.lower(), OPTIMISERS, n=3)
    advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(OPTIMISERS)}"
    raise ValueError(f"{section}.optimiser must be an optimiser of optax that fits can use, got {name!r}; {advice}")


def adam_by_name(section: str, data):
    """A section of fits before its validation, with ``method = "adam"`` written as the optimiser of that name.

    section: its name, for the message. Raises ValueError where another optimiser is named beside it.
    """
    methods = {"adam": "optimiser", "adam_then_gauss_newton": "optimiser_then_gauss_newton"}
    method = data.get("method") if isinstance(data, dict) else None
    if not isinstance(method, str) or method not in methods:
        return data
    if (other := data.get("optimiser", "adam")) != "adam":
        raise ValueError(
            f"{section}.method = '{method}' is not {section}.optimiser = '{other}': set {section}.method = "
            f"'{methods[method]}'"
        )
    return data | {"method": methods[method], "optimiser": "adam"}
