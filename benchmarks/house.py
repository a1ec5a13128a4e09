"""The shape of the package: its rooms, what imports what, and how much its functions take.

  python benchmarks/house.py            a page of figures
  python benchmarks/house.py --json     the same as JSON

A room is a folder of the package. Room a has an arrow to room b where a module of a imports one of
b. Nobody lists the order of the rooms: it follows from the arrows, a room above all that it
imports. So an arrow that runs back up is one of a circle.

Exits with 1 where rooms or modules import each other in a circle, a module lies in no room, or a
function takes more than six parameters that are not options. An option has a default, or is
keyword-only.
"""

import argparse
import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MOST_PARAMETERS = 6
PACKAGE = Path(__file__).parents[1] / "permix_jax"
FAULTS = ("circle of rooms", "circle of modules", "loose modules", "too many parameters")

Graph = dict[str, set[str]]


def measure(package: Path) -> dict:
    """The figures of a package, as plain values. Modules go by dotted names below the package."""
    trees = {_name(path, package): ast.parse(path.read_text("utf-8")) for path in _files(package)}
    lines = {_name(path, package): path.read_text("utf-8").count("\n") for path in _files(package)}
    modules: Graph = {name: _imports(name, trees, package.name) for name in trees}
    rooms: Graph = {_room(name): set() for name in modules if _room(name)}
    for name, imported in modules.items():
        if _room(name):
            rooms[_room(name)] |= {_room(other) for other in imported} - {_room(name), ""}
    names = Counter(name.rpartition(".")[2] for name in modules)
    return {
        "rooms": _floors(rooms),
        "modules": len(modules),
        "lines": sum(lines.values()),
        "arrows": sum(map(len, rooms.values())),
        "circle of rooms": _arrows(_circles(rooms)),
        "circle of modules": _arrows(_circles(modules)),
        "loose modules": sorted(name for name in modules if not _room(name)),
        "too many parameters": [it for one in trees.items() for it in _takers(*one)],
        "names of several modules": sorted(name for name, times in names.items() if times > 1),
        "longest files": dict(sorted(lines.items(), key=lambda item: -item[1])[:8]),
    }


def is_sound(figures: dict) -> bool:
    """Whether nothing of what the module names is wrong."""
    return not any(figures[fault] for fault in FAULTS)


def _files(package: Path) -> list[Path]:
    return [path for path in sorted(package.rglob("*.py")) if path.name != "__init__.py"]


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package).with_suffix("").parts)


def _room(module: str) -> str:
    """The folder that the module lies in; "" for one that lies in none."""
    return module.partition(".")[0] if "." in module else ""


def _imports(name: str, trees: dict[str, ast.Module], root: str) -> set[str]:
    """The other modules of the package `root` that a module imports, in its functions too."""
    found = set()
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = [root, *name.split(".")][: -node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return ({module.removeprefix(f"{root}.") for module in found} & trees.keys()) - {name}


def _circles(graph: Graph) -> Graph:
    """What is left of a graph when whatever imports nothing, or is imported by nothing, is taken
    away until there is no more of it."""
    left = dict(graph)
    while True:
        imported = set().union(*(left[name] & left.keys() for name in left))
        kept = {name for name in left if name in imported and left[name] & left.keys()}
        if kept == left.keys():
            return {name: graph[name] & kept for name in sorted(kept)}
        left = {name: left[name] for name in kept}


def _arrows(graph: Graph) -> list[str]:
    return [f"{name} -> {other}" for name, others in graph.items() for other in sorted(others)]


def _floors(rooms: Graph) -> list[list[str]]:
    """The rooms floor by floor from the ground: each above all that it imports. Those of a circle,
    and what stands on them, are the last floor."""
    floors, placed = [], set()
    while rest := rooms.keys() - placed:
        floor = {room for room in rest if rooms[room] <= placed} or rest
        floors.append(sorted(floor))
        placed |= floor
    return floors


def _takers(module: str, tree: ast.Module) -> Iterator[str]:
    """The functions that take too much, as "module:function takes n"."""
    methods = {
        id(function)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for function in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            plain = [*node.args.posonlyargs, *node.args.args]
            static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
            itself = id(node) in methods and not static
            number = len(plain) - len(node.args.defaults) - itself
            if number > MOST_PARAMETERS:
                yield f"{module}:{node.name} takes {number}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="JSON in place of a page")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="folder to measure")
    arguments = parser.parse_args()
    figures = measure(arguments.package)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name}: {len(value) if isinstance(value, list) else value}")
            for line in value if isinstance(value, list) else ():
                print(f"    {line if isinstance(line, str) else ', '.join(line)}")
    return 0 if is_sound(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
