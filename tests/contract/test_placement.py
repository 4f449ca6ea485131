"""Which nodes of which decorated functions run on a backend, on graphs that Hamilton itself builds."""

# Hamilton reads annotations when it decorates: they are no strings here.
from collections.abc import Callable
from typing import Any

import pytest
from hamilton import ad_hoc_utils, driver
from hamilton.function_modifiers import (
    ResolveAt,
    check_output,
    config,
    dataloader,
    datasaver,
    does,
    extract_fields,
    inject,
    load_from,
    parameterize,
    pipe_input,
    pipe_output,
    resolve,
    save_to,
    source,
    step,
    subdag,
    tag,
    value,
)
from hamilton.htypes import Collect, Parallelizable

from traced_threadpool.placement import TAG, Placement, RunOn, place, run_on, similar

CPU = tag(**{TAG: "cpu"})


def nodes_of(*functions: Callable[..., Any], **settings: Any) -> Any:
    """The nodes of a graph, by name."""
    module = ad_hoc_utils.create_temporary_module(*functions)
    builder = driver.Builder().enable_dynamic_execution(allow_experimental_mode=True)
    return builder.with_config(settings).with_modules(module).build().graph.nodes


def placed(*functions: Callable[..., Any], by: RunOn | None = None, **settings: Any) -> dict[str, str]:
    """Where the nodes of these functions run, with the backends `cpu` and `db`."""
    nodes = nodes_of(*functions, **settings)
    return dict(place(nodes, list(nodes), by, ["cpu", "db"]).backends)


def doubled(x: int) -> int:
    return 2 * x


# Decorated functions: the tag is where Hamilton leaves it; what computes is placed.


@run_on("cpu")
def plain() -> int:
    return 1


@CPU
@check_output(range=(0, 10), importance="warn")
def checked() -> int:
    return 1


@CPU
@extract_fields({"first": int, "second": int})
def fields() -> dict[str, int]:
    return {"first": 1, "second": 2}


@CPU
@parameterize(low={"x": value(1)}, high={"x": value(9)})
def bounds(x: int) -> int:
    return x


@CPU
@parameterize(low_checked={"x": value(1)}, high_checked={"x": value(9)})
@check_output(range=(0, 10), importance="warn")
def checked_bounds(x: int) -> int:
    return x


@CPU
@pipe_input(step(doubled).named("once"), step(doubled).named("twice"))
def piped(plain: int) -> int:
    return plain


@CPU
@pipe_output(step(doubled).named("once"))
def piped_out() -> int:
    return 1


def inner(y: int) -> int:
    return y


def outer(inner: int) -> int:
    return inner


@CPU
@subdag(inner, outer, inputs={"y": source("plain")}, config={})
def nested(outer: int) -> int:
    return outer


@CPU
@resolve(when=ResolveAt.CONFIG_AVAILABLE, decorate_with=lambda low: parameterize(resolved={"x": value(low)}))
def resolvable(x: int) -> int:
    return x


@CPU
@dataloader()
def loaded() -> tuple[int, dict[str, Any]]:
    return 1, {}


@CPU
@datasaver()
def saved(plain: int) -> dict:
    return {}


@CPU
@load_from.json(path=value("x.json"))
def from_file(rows: dict[str, Any]) -> int:
    return 1


@CPU
@save_to.json(path=value("x.json"), output_name_="written")
def to_file(plain: int) -> dict[str, Any]:
    return {}


@CPU
@does(lambda **given: sum(given.values()))
def summed(plain: int) -> int: ...


@CPU
@inject(x=value(3))
def injected(x: int) -> int:
    return x


@CPU
@config.when(place="here")
def chosen__here() -> int:
    return 1


@CPU
def branches() -> Parallelizable[int]:
    yield 1


@CPU
def collected(branches: Collect[int]) -> int:
    return 1


def needed() -> int:
    """What the tagged functions need, without a tag of its own."""
    return 1


needed.__name__ = "plain"


@pytest.mark.parametrize(
    ("function", "expected", "settings"),
    [
        (checked, {"checked_raw"}, {}),
        (fields, {"fields"}, {}),
        (bounds, {"low", "high"}, {}),
        (checked_bounds, {"low_checked_raw", "high_checked_raw"}, {}),
        (piped, {"piped.once", "piped.twice", "piped"}, {}),
        (piped_out, {"piped_out.raw", "piped_out.once"}, {}),
        (nested, {"nested.inner", "nested.outer", "nested"}, {}),
        (resolvable, {"resolved"}, {"low": 1, "hamilton.enable_power_user_mode": True}),
        (loaded, {"loaded.loader"}, {}),
        (saved, {"saved"}, {}),
        (from_file, {"from_file", "from_file.load_data.rows"}, {}),
        (to_file, {"to_file", "written"}, {}),
        (summed, {"summed"}, {}),
        (injected, {"injected"}, {}),
        (chosen__here, {"chosen"}, {"place": "here"}),
        (branches, {"branches"}, {}),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_decorated_functions(function: Callable[..., Any], expected: set[str], settings: dict[str, Any]) -> None:
    """Tagged as a whole, or named in `run_on=` by its node or function: the same nodes are placed."""
    assert placed(needed, function, **settings) == dict.fromkeys(expected, "cpu")
    nodes = set(nodes_of(needed, function, **settings))
    name = function.__name__.removesuffix("__here")
    if name in nodes or not expected & {name}:
        named = placed(needed, function, by={name: "db"}, **settings)
        assert named.items() >= {(each, "db") for each in expected if name in (each, *each.split("."))}


def test_tagged_ones_alone_are_placed() -> None:
    """What they need and what needs them stays on threads."""

    def after(plain: int) -> int:
        return plain

    assert placed(plain, after) == {"plain": "cpu"}


def test_a_collecting_node() -> None:
    """Expanding and collecting nodes are functions like others."""
    assert placed(branches, collected) == {"branches": "cpu", "collected": "cpu"}


# Which of several wishes counts


def test_run_on_goes_before_tags() -> None:
    """Also to bring a tagged node back to threads."""
    assert placed(plain, by={"plain": "db"}) == {"plain": "db"}
    assert placed(plain, by={"plain": "threads"}) == {}
    assert placed(needed, checked, by={"checked": "db"}) == {"checked_raw": "db"}


def test_one_name_for_all() -> None:
    """All that computes; what only rearranges values stays."""
    assert placed(needed, checked, fields, by="db") == {"plain": "db", "checked_raw": "db", "fields": "db"}


def test_a_callable_is_asked_for_each_node() -> None:
    """It gets Hamilton's node, and may go by its tags; None is no wish."""

    @tag(heavy="yes")
    @check_output(range=(0, 10), importance="warn")
    def train() -> int:
        return 1

    assert placed(plain, train, by=lambda node: "db" if node.tags.get("heavy") else None) == {
        "plain": "cpu",
        "train_raw": "db",
    }


def test_the_name_of_a_function_means_all_its_nodes() -> None:
    assert placed(needed, bounds, by={"bounds": "db"}) == {"low": "db", "high": "db"}
    assert placed(needed, bounds, by={"low": "db"}) == {"low": "db", "high": "cpu"}


def test_a_function_within_a_subdag_has_its_own_tag() -> None:
    """It goes before that of the subdag around it."""

    @tag(**{TAG: "db"})
    def inner(y: int) -> int:
        return y

    @CPU
    @subdag(inner, outer, inputs={"y": source("plain")}, config={})
    def around(outer: int) -> int:
        return outer

    assert placed(needed, around) == {"around.inner": "db", "around.outer": "cpu", "around": "cpu"}


def test_nodes_that_do_not_run_are_left_out() -> None:
    """And what is wrong with them is no error."""

    @tag(**{TAG: "gpu"})
    def other() -> int:
        return 1

    nodes = nodes_of(plain, other)
    assert place(nodes, ["plain"], None, ["cpu"]) == Placement(backends={"plain": "cpu"})


# What is refused


def test_a_tag_that_names_no_backend() -> None:
    with pytest.raises(
        ValueError,
        match=r"node 'plain' is tagged to run on 'cpu'; 'cpu' is no backend of this adapter, which has 'db', 'threads'",
    ):
        place(nodes_of(plain), ["plain"], None, ["db"])


@pytest.mark.parametrize("by", ["gpu", {"plain": "gpu"}, lambda node: "gpu"], ids=["name", "mapping", "callable"])
def test_run_on_that_names_no_backend(by: RunOn) -> None:
    with pytest.raises(ValueError, match=r"'gpu' is no backend of this adapter, which has 'cpu', 'db', 'threads'"):
        placed(plain, by=by)


@pytest.mark.parametrize("by", [{"plain": 1}, lambda node: 1], ids=["mapping", "callable"])
def test_what_is_no_name(by: Any) -> None:
    with pytest.raises(TypeError, match="a backend is given by its name, not as 1"):
        placed(plain, by=by)


def test_a_tag_on_what_computes_nothing() -> None:
    """It would be without effect, in silence."""

    nodes = nodes_of(needed, checked)
    validator = nodes["checked_range_validator"]
    validator.add_tag(TAG, "cpu")
    validator._dependencies = []
    with pytest.raises(
        ValueError, match=r"'checked_range_validator' is tagged to run on 'cpu', and neither it nor what"
    ):
        place(nodes, list(nodes), None, ["cpu"])
    validator.tags.pop(TAG)
    with pytest.raises(ValueError, match=r"run_on= sends 'checked_range_validator' to 'db', and neither it nor what"):
        place(nodes, list(nodes), {"checked_range_validator": "db"}, ["cpu", "db"])


def test_an_input() -> None:
    """It does not run at all."""

    def uses(given: int) -> int:
        return given

    with pytest.raises(ValueError, match="names 'given', which is an input"):
        placed(uses, by={"given": "cpu"})


def test_two_wishes_for_what_two_nodes_are_made_from() -> None:
    """It can run in one place; to name it itself decides."""
    nodes = nodes_of(needed, fields)
    nodes["second"].add_tag(TAG, "db")
    with pytest.raises(
        ValueError, match=r"node 'fields' is asked to run on 'cpu' for 'first' and on 'db' for 'second'"
    ):
        place(nodes, list(nodes), None, ["cpu", "db"])


def test_names_that_no_node_has() -> None:
    """Are told, and no error: an adapter may run graphs without them."""
    nodes = nodes_of(plain)
    assert place(nodes, list(nodes), {"plian": "db"}, ["cpu", "db"]).unknown == ("plian",)
    assert similar("plian", list(nodes)) == "; did you mean 'plain'?"


@pytest.mark.parametrize("backend", ["", None, 3])
def test_a_decorator_without_a_name(backend: Any) -> None:
    with pytest.raises(TypeError, match=r"such as @run_on\('cpu'\)"):
        run_on(backend)


def test_columns() -> None:
    """`extract_columns` needs a library of frames that Hamilton knows."""
    pandas = pytest.importorskip("pandas")
    from hamilton.function_modifiers import extract_columns
    from hamilton.plugins import pandas_extensions  # noqa: F401  # tells Hamilton of pandas

    @CPU
    @extract_columns("a", "b")
    def table() -> pandas.DataFrame:
        return pandas.DataFrame({"a": [1], "b": [2]})

    assert placed(table) == {"table": "cpu"}
