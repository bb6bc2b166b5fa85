"""What `replay help` can tell, and where it stands: each topic is read from the one place that says it.

A topic is a section of the front page (README.md), a page beside the code (replay/*/README.md, traces/README.md), a
module's docstring, or a table of the code itself; the name of a plug-in gives the essay that opens its file. Nothing is
written twice, and nothing but the text that is asked for is read.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from replay.errors import ReplayError, unknown_name

_PACKAGE = Path(__file__).resolve().parents[1]
KINDS = ("log", "design", "policy", "workload", "importer", "capture")
FRONT, PAGE, DOCSTRING, PLUGINS, TABLE = "front page", "page", "docstring", "plug-ins", "table"


@dataclass(frozen=True, kw_only=True)
class Topic:
    """`parts`: pairs of a kind of source and its name."""

    name: str
    summary: str
    parts: tuple[tuple[str, str], ...]


def _topic(name: str, summary: str, *parts: tuple[str, str]) -> Topic:
    return Topic(name=name, summary=summary, parts=parts)


TOPICS = (
    _topic("start", "the first commands, and the same from Python", (FRONT, "In sixty seconds")),
    _topic("words", "the words of this field as they are used here", (FRONT, "Words")),
    _topic("designs", "how dirty pages are stored and found, and proof that none is lost",
           (PLUGINS, "design"), (PAGE, "designs/README.md")),
    _topic("adding-a-design", "a design of your own: one file, whole", (FRONT, "A design of your own")),
    _topic("logs", "how a hypervisor notices writes", (PLUGINS, "log")),
    _topic("policies", "what is decided at a sync: throttling", (PLUGINS, "policy")),
    _topic("workloads", "generated guests, and a workload of your own", (PLUGINS, "workload"),
           (PAGE, "workloads/README.md")),
    _topic("traces", "the trace format, and what the shipped recordings are", (PAGE, "shipped/README.md")),
    _topic("reshaping", "slices, samples, merges, scales and fits of traces", (PAGE, "reshaping/README.md")),
    _topic("importing", "traces from what was recorded, and an importer of your own", (PLUGINS, "importer"),
           (PAGE, "importers/README.md")),
    _topic("capturing", "traces of what runs now: a guest in QEMU, a program, a micro-VM", (PLUGINS, "capture"),
           (PAGE, "captures/README.md")),
    _topic("columns", "every column of the record, with its unit", (PAGE, "results/README.md")),
    _topic("counters", "every piece of work that is counted, and priced", (TABLE, "counters")),
    _topic("costs", "cost tables: what a unit of work costs, and tables of your own", (DOCSTRING, "migration/costs.py"),
           (TABLE, "costs")),
    _topic("units", "how sizes, bandwidths, times and shares may be written", (DOCSTRING, "units.py"),
           (TABLE, "units")),
    _topic("modelled", "what is modelled, what is measured, and what is neither",
           (FRONT, "What is modelled, what is measured")),
    _topic("accuracy", "how wrong predictions of real migrations have been", (PAGE, "validation/README.md")),
    _topic("speed", "how fast it is, and how many times faster than a script", (FRONT, "How fast it is")),
    _topic("analysis", "which design wins where; why a run took so long; charts and reports",
           (PAGE, "analysis/README.md")),
    _topic("sweeps", "thousands of replays: plans, resuming, clusters", (FRONT, "Sweeps")),
    _topic("answers", "advice, the bound of hindsight, Pareto fronts, fleets", (FRONT, "Answers")),
    _topic("published", "published experiments, and one of your own", (PAGE, "reproducing/README.md")),
    _topic("architecture", "the layers, and how exactness is known", (PAGE, "README.md")),
    _topic("exit-codes", "what the exit codes of every command mean", (TABLE, "exit codes")),
)  # fmt: skip
ALIASES = {
    "metrics": "columns", "record": "columns", "glossary": "words", "bandwidths": "units", "exit": "exit-codes",
    "safety": "designs", "check": "designs", "explain": "analysis", "phase": "analysis", "report": "analysis",
    "plot": "analysis", "capture": "capturing", "import": "importing", "validate": "accuracy", "reproduce": "published",
    "sweep": "sweeps", "advise": "answers", "bound": "answers", "fleet": "answers", "pareto": "answers",
}  # fmt: skip


def find(name: str) -> Topic:
    """The topic of this name, an alias of one, or a plug-in's essay. Raises UsageError naming the nearest."""
    from replay import plugins

    known = {topic.name: topic for topic in TOPICS}
    if name in known or name in ALIASES:
        return known[ALIASES.get(name, name)]
    essays = {found: kind for kind in KINDS for found in plugins.names(kind)}
    if name in essays:
        summary = plugins.describe(essays[name], name).summary
        return _topic(name, summary, (DOCSTRING, _file(essays[name], name)), (TABLE, f"parameters of {essays[name]}"))
    raise unknown_name("topic", name, [*known, *ALIASES, *essays])


def text(topic: Topic) -> str:
    """The topic as Markdown. Raises ReplayError when the page is not part of this installation."""
    return "\n\n".join(_part(topic, kind, name).strip("\n") for kind, name in topic.parts)


def _part(topic: Topic, kind: str, name: str) -> str:
    if kind == FRONT:
        return section(front_page(), name)
    if kind == PAGE:
        return _page(name)
    if kind == DOCSTRING:
        return ast.get_docstring(ast.parse((_PACKAGE / name).read_text())) or ""
    if kind == PLUGINS:
        return _listed(name)
    return _table(topic, name)


def section(page: str, heading: str) -> str:
    """What stands under a heading of the front page, with it. Raises ReplayError when there is no such heading."""
    _, found, rest = f"\n{page}".partition(f"\n## {heading}\n")
    if not found:
        raise ReplayError(f"the front page has no section {heading!r}")
    inside, lines = False, []
    for line in rest.splitlines():
        inside ^= line.startswith("```")
        if line.startswith("## ") and not inside:
            break
        lines.append(line)
    return f"# {heading}\n" + "\n".join(lines)


def front_page() -> str:
    """README.md: the checkout's, or what the installed distribution carries of it."""
    path = _PACKAGE.parent / "README.md"
    if path.is_file() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return path.read_text()
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        described = metadata("dirtyreplay")["Description"]
    except (PackageNotFoundError, KeyError):
        described = ""
    if not described:
        raise ReplayError("this installation does not carry the front page; install it with pip install dirtyreplay")
    return described


def _page(name: str) -> str:
    path = _PACKAGE / name
    if name.startswith("shipped/") and not path.is_file():
        path = _PACKAGE.parent / "traces" / Path(name).name
    try:
        return path.read_text()
    except OSError as error:
        raise ReplayError(f"{path}: cannot be read: {error.strerror}; install dirtyreplay again") from None


def _file(kind: str, name: str) -> str:
    from replay import plugins

    return f"{plugins.FOLDERS[kind]}/{name.replace('-', '_')}.py"


def _listed(kind: str) -> str:
    """The plug-ins of a kind, with the first line of each essay."""
    from replay import plugins

    rows = [f"| `{name}` | {plugins.describe(kind, name).summary} |" for name in plugins.names(kind)]
    return "\n".join(["| name | what |", "|---|---|", *rows, "", "`replay help NAME` has the whole essay of each."])


def _table(topic: Topic, name: str) -> str:
    if name == "counters":
        from replay import work

        rows = [f"| `{counter.name}` | {counter.unit} | {counter.meaning} |" for counter in work.COUNTERS]
        return "\n".join(["| counter | unit | meaning |", "|---|---|---|", *rows])
    if name == "costs":
        return _costs()
    if name == "units":
        from replay import units

        rows = [f"| {what} | {', '.join(f'`{form}`' for form in forms)} |" for what, forms in units.FORMS.items()]
        return "\n".join(["| what | for example |", "|---|---|", *rows])
    if name == "exit codes":
        from replay.cli.main import EXIT_CODES

        lines = [line.split(maxsplit=1) for line in EXIT_CODES.splitlines()[1:] if line.strip()]
        return "\n".join(["| exit code | meaning |", "|---|---|", *(f"| {code} | {told} |" for code, told in lines)])
    return _parameters(name.removeprefix("parameters of "), topic.name)


def _costs() -> str:
    """The shipped cost tables; their files are read without the module that prices with them."""
    import tomllib

    rows = []
    for path in sorted((_PACKAGE / "migration" / "cost_tables").glob("*.toml")):
        rows.append(f"| `{path.stem}` | {tomllib.loads(path.read_text())['description']} |")
    how = "`--costs NAME`, `--costs NAME:ENTRY=NS,...` or `--costs FILE.toml`; `replay calibrate` writes one."
    return "\n".join(["| cost table | what |", "|---|---|", *rows, "", how])


def _parameters(kind: str, name: str) -> str:
    from replay import plugins

    rows = [
        f"| `{found.name}` | {plugins.spell(found.default, found.unit)} "
        f"{found.unit.removeprefix('ns')} | {found.help} |"
        for found in plugins.describe(kind, name).parameters
    ]
    return "\n".join(["| parameter | default | meaning |", "|---|---|---|", *rows]) if rows else "It has no parameters."
