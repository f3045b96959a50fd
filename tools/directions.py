#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that uses run one way: no circle among files, and no arrow against the order of the folders.

Three graphs are looked at: includes of the C files, references between the object files of a build (a function that is
used is an arrow, whatever header declares it), and what the package's modules import when they are imported.

    tools/directions.py [--root TREE] [BUILD ...]

The object files of each BUILD, a build directory, are looked at; without one the second graph is left out.
"""

import argparse
import ast
import pathlib
import re
import subprocess
import sys

# A folder may use those that stand before it. What is not named here is not looked at.
ENGINE = ["plat", "base", "channel", "memory", "state", "worker", "start", "pool", "face"]
EXTENSION = ["core", "codec", "call", "worker", "pool", "map", "apply", "module"]

Graph = dict[str, dict[str, str]]


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan's algorithm)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in graph.get(node, {}):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    sys.setrecursionlimit(10000)
    for node in list(graph):
        if node not in number:
            visit(node)
    return found


def includes(base: pathlib.Path) -> Graph:
    """Which file includes which; paths are relative to `base`."""
    graph: Graph = {}
    for file in sorted(base.rglob("*.[ch]")):
        name = str(file.relative_to(base))
        graph[name] = {}
        for include in re.findall(r'^#include "([^"]+)"', file.read_text(), re.M):
            for place in (base / include, file.parent / include):
                if place.exists():
                    graph[name][str(place.resolve().relative_to(base))] = f'#include "{include}"'
                    break
    return graph


def references(objects: list[pathlib.Path], name_of: dict[pathlib.Path, str]) -> Graph:
    """Which object file uses a symbol of which."""
    defined: dict[str, str] = {}
    wanted: dict[str, list[str]] = {}
    for file in objects:
        listing = subprocess.run(["nm", file], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            *_, kind, symbol = line.split()
            if kind in "TDBRC":
                defined[symbol] = name_of[file]
            elif kind == "U":
                wanted.setdefault(name_of[file], []).append(symbol)
    graph: Graph = {name: {} for name in name_of.values()}
    for user, symbols in wanted.items():
        for symbol in symbols:
            owner = defined.get(symbol)
            if owner and owner != user:
                graph[user].setdefault(owner, symbol)
    return graph


def built(build: pathlib.Path, base: pathlib.Path) -> Graph:
    """The references among the object files that a build made of the sources below `base`."""
    names: dict[pathlib.Path, str] = {}
    for file in build.rglob("*.c.o"):
        source = file.name.removesuffix(".o").replace("_", "/", 1)
        place = base / source
        while not place.exists() and "_" in source:
            source = source.replace("_", "/", 1)
            place = base / source
        if place.exists():
            names.setdefault(file, source)
    newest: dict[str, pathlib.Path] = {}
    for file, source in names.items():
        if source not in newest or file.stat().st_mtime > newest[source].stat().st_mtime:
            newest[source] = file
    return references(sorted(newest.values()), {file: source for source, file in newest.items()})


def imports(package: pathlib.Path) -> Graph:
    """What each module imports when it is itself imported: imports in functions, and for types alone, come later."""
    modules = {
        str(file.relative_to(package.parent).with_suffix("")).replace("/", "."): file for file in package.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph: Graph = {name: {} for name in modules}
    for name, file in modules.items():
        own = name if file.name == "__init__.py" else name.rpartition(".")[0]
        todo: list[ast.AST] = list(ast.parse(file.read_text()).body)
        while todo:
            node = todo.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                todo.extend(node.orelse)
                continue
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = own.split(".")[: len(own.split(".")) - node.level + 1] if node.level else []
                start = ".".join([*above, *([node.module] if node.module else [])])
                targets = [
                    f"{start}.{alias.name}" if f"{start}.{alias.name}" in modules else start for alias in node.names
                ]
            else:
                todo.extend(ast.iter_child_nodes(node))
                continue
            for target in targets:
                if target in modules and target != name:
                    graph[name][target] = f"line {node.lineno}"
    return graph


def against(graph: Graph, order: list[str]) -> list[str]:
    """The arrows from a folder to one that stands behind it."""
    place = {folder: i for i, folder in enumerate(order)}
    wrong = []
    for user, used in graph.items():
        for owner, how in used.items():
            one, other = place.get(user.split("/")[0]), place.get(owner.split("/")[0])
            if one is not None and other is not None and other > one:
                wrong.append(f"{user} uses {owner} ({how})")
    return wrong


def check(what: str, graph: Graph, order: list[str]) -> list[str]:
    """All that is wrong with one graph, as lines for people."""
    lines = [f"{what}: {line}, against the order {' < '.join(order)}" for line in against(graph, order)]
    for component in circles(graph):
        lines.append(f"{what}: a circle of {len(component)}:")
        for name in component:
            lines.extend(f"    {name} uses {other} ({how})" for other, how in graph[name].items() if other in component)
    return lines


def main() -> int:
    """Prints what is wrong. Returns: 0 when nothing is, else 1."""
    parser = argparse.ArgumentParser(description="Checks that uses run one way.")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("builds", nargs="*", type=pathlib.Path, metavar="BUILD")
    asked = parser.parse_args()
    engine, extension = asked.root / "engine", asked.root / "python/ext"
    wrong = check("includes", includes(engine), ENGINE)
    wrong += check("includes", includes(extension), EXTENSION)
    wrong += check("imports", imports(asked.root / "python/tercio"), [])
    for build in asked.builds:
        graph = built(build, engine)
        if (
            len(graph) < len([file for file in engine.rglob("*.c") if "plat" not in file.parts]) - 2
        ):  # fault points, worker command
            wrong.append(f"{build}: {len(graph)} object files of the engine, which isn't a whole build")
        wrong += check(f"references in {build}", graph, ENGINE)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
