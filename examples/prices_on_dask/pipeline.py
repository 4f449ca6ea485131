"""Prices of houses in four towns: made up, described, and a model of each fitted; what is heavy is for the cluster.

    houses_n -> features_n -> model_n --> coefficients -> report
                    `-------> errors_n -------------------'

Each town's frames stay on the cluster: the nodes below find them there. Only coefficients and errors come back.
"""

from typing import Any

import numpy as np
import pandas as pd
from hamilton.function_modifiers import group, parameterize, source, value

from traced_threadpool import run_on

TOWNS = ("north", "east", "south", "west")


Matrix = np.ndarray[Any, Any]


def _per_town(output: str, **inputs: str) -> parameterize:
    """One node a town; each input is the node of that name of the same town."""
    nodes: dict[str, Any] = {
        f"{output}_{town}": {name: source(f"{of}_{town}") for name, of in inputs.items()} for town in TOWNS
    }
    return parameterize(**nodes)


SEEDS: dict[str, Any] = {f"houses_{town}": {"seed": value(number)} for number, town in enumerate(TOWNS)}


@run_on("cluster")
@parameterize(**SEEDS)
def houses(rows: int, seed: int) -> pd.DataFrame:
    """Sizes in square metres, ages in years, and prices that follow from them, with noise."""
    chance = np.random.default_rng(seed)
    size, age = chance.uniform(30, 250, rows), chance.uniform(0, 100, rows)
    price = 50_000 + (3_000 + 200 * seed) * size - 900 * age + chance.normal(0, 20_000, rows)
    return pd.DataFrame({"size": size, "age": age, "price": price})


@run_on("cluster")
@_per_town("features", houses="houses")
def features(houses: pd.DataFrame) -> pd.DataFrame:
    """What the model goes by, and the price."""
    return houses.assign(constant=1.0, old=(houses["age"] > 50).astype(float), beds=(houses["size"] / 22).round())


@run_on("cluster")
@_per_town("model", features="features")
def model(features: pd.DataFrame) -> Matrix:
    """Least squares: what each feature adds to the price."""
    found, *_ = np.linalg.lstsq(_matrix(features), features["price"].to_numpy(), rcond=None)
    return np.asarray(found)


@run_on("cluster")
@_per_town("errors", features="features", model="model")
def errors(features: pd.DataFrame, model: Matrix) -> float:
    """How far off the model is, in the middle."""
    return float(np.median(np.abs(_matrix(features) @ model - features["price"].to_numpy())))


@parameterize(
    report={
        "models": group(*(source(f"model_{town}") for town in TOWNS)),
        "errors": group(*(source(f"errors_{town}") for town in TOWNS)),
    }
)
def report(models: list[Matrix], errors: list[float]) -> pd.DataFrame:
    """A row for each town."""
    return pd.DataFrame(
        {
            "per square metre": [found[0] for found in models],
            "per year of age": [found[1] for found in models],
            "median error": errors,
        },
        index=pd.Index(TOWNS, name="town"),
    )


def _matrix(features: pd.DataFrame) -> Matrix:
    return np.asarray(features[["size", "age", "constant", "old", "beds"]])
