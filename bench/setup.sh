#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the benchmarks need: the peers in an environment of their own (bench/.venv, pinned), the package as a user
# gets it (an optimised wheel), and the programs in C. Quick when nothing changed.
set -eu
cd "$(dirname "$0")/.."

venv=bench/.venv
build=${BUILD:-build}/bench
tools=$(cd "${VENV:-.venv}/bin" && pwd)
export PATH="$tools:$PATH" # the build finds the pinned tools first

key=$(cat bench/requirements.txt | cksum | tr ' ' -)-$("$tools/python" -c 'import sys; print(sys.hexversion)')
if [ ! -e "$venv/.have-$key" ]; then
    echo "bench: installing bench/requirements.txt into $venv" >&2
    rm -rf "$venv"
    "$("$tools/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r bench/requirements.txt
    touch "$venv/.have-$key"
fi

mkdir -p "$build"
sources=$(find engine include python -type f ! -name '*.py[co]' -newer "$build/.installed" 2>/dev/null || echo all)
if [ -n "$sources" ]; then
    rm -rf "$build/wheel"
    "$tools/python" -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps \
        --config-settings=build-dir="$build/py" -w "$build/wheel" .
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --force-reinstall "$build"/wheel/*.whl
    touch "$build/.installed"
fi

# The library as a distribution would build it. OpenMP comes with gcc.
[ -e "$build/c/build.ninja" ] || "$tools/meson" setup "$build/c" -Dpython=disabled -Dtests=false -Dbuildtype=release \
    -Ddefault_library=static >"$build/c.log" 2>&1 || { cat "$build/c.log"; exit 1; }
"$tools/ninja" -C "$build/c" --quiet
gcc -O2 -Wall -Wextra -Werror bench/c/floors.c -o "$build/floors"
gcc -O2 -std=gnu11 -Wall -Wextra -Werror -fopenmp -Iinclude bench/c/map.c "$build/c/engine/libtercio.a" -pthread -lm \
    -o "$build/map"
