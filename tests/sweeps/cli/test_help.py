"""`study help` against what the verbs do: their codes are read from their return statements."""

from __future__ import annotations

import ast
import inspect
import sys
from types import SimpleNamespace

import pytest
import typer

from sweeps.cli import app as cli
from sweeps.cli.bench import chaos
from sweeps.cli.cluster import fake
from sweeps.cli.help import JSON, OWN, SHARED

VERBS = {
    **{name: function for verbs in cli.VERBS.values() for name, function, _ in verbs},
    "bench chaos": chaos,
    "cluster fake": fake,
}


def codes(function) -> set[int]:
    """What a function of the command line can return, calls within its module followed."""
    module = sys.modules[function.__module__]
    (body,) = ast.parse(inspect.getsource(function)).body
    returned: set[int] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Return) and node.value is not None:
            returned |= values(node.value, module)
    return returned


def values(node: ast.expr, module) -> set[int]:
    match node:
        case ast.Constant(value=int(code)):
            return {code}
        case ast.IfExp(body=one, orelse=other):
            return values(one, module) | values(other, module)
        case ast.Name(id="INTERRUPTED"):
            return {130}
        case ast.Attribute(attr="exit_code"):  # of a sweep, see `runner.run.Result`
            return {0, 1, 130}
        case ast.Call(func=ast.Attribute(attr="exit_code")):  # of `cell_status`
            return {0, 1, 3}
        case ast.Subscript(value=ast.Name(id=table)):
            return set(getattr(module, table).values())
        case ast.Call(func=ast.Name(id=name)):
            return codes(getattr(module, name))
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)):
            return codes(getattr(sys.modules[f"sweeps.cli.{owner}"], name))
    raise AssertionError(ast.unparse(node))


def commands(command, path=("study",)):
    """Every command below `command`, by path."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def test_every_help_has_one_short_line_and_an_example():
    tree = dict(commands(typer.main.get_command(cli.app)))
    assert len(tree) > 25
    for path, command in tree.items():
        first = command.help.splitlines()[0]
        assert len(first) < 60 and first.endswith("."), (path, first)
        if path != ("study",):
            assert not first.split()[0].endswith("s"), path  # imperative
        assert command.epilog.startswith(f"Example: {' '.join(path)}"), path
        for option in command.params:
            assert getattr(option, "help", True), (path, option.name)


def test_help_shows_verbs_by_group_with_their_example(study):
    out = study("--help")[1]
    panels = ["Explore", "Run", "Results", "Data", "Developer"]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("╭")][1:] == panels
    assert study()[:2] == study("--help")[:2]
    assert "Example: study run demo" in study("run", "--help")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_the_documented_codes_are_those_that_a_verb_returns(verb):
    import sweeps.cli.overview  # noqa: F401  `status` imports it when it runs

    documented = set(OWN.get(verb, {0: ""})) - {2}  # 2 is raised, never returned
    assert codes(VERBS[verb]) - {130} == documented - {130}
    assert documented <= {*SHARED, 1, 3}


def test_json_is_documented_for_the_verbs_that_print_it(study):
    tree = typer.main.get_command(cli.app)
    flagged = {
        " ".join(path[1:])
        for path, command in commands(tree)
        if any("--json" in option.opts for option in command.params)
    }
    assert flagged == set(JSON)
    code, out, _ = study("help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in {**OWN, **JSON})
    assert "  70 " in out and max(map(len, out.splitlines())) <= 120


def test_ctrl_c_is_one_line_whenever_it_comes(study, monkeypatch, capsys):
    """In a verb, and while the verbs are imported."""
    package = sys.modules["sweeps.cli"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sweeps.registry.load_study", interrupt)
    code, out, err = study("best", "demo")
    assert (code, out, err.strip()) == (130, "", "study: interrupted")
    monkeypatch.delitem(sys.modules, "sweeps.cli.app")
    monkeypatch.delattr(package, "app")
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=interrupt)])
    with pytest.raises(SystemExit) as caught:
        package.main()
    assert (caught.value.code, capsys.readouterr().err) == (130, "study: interrupted\n")
