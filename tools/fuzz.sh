#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs each fuzz target for a while, from the corpus in the tree. $1: build directory; $2: seconds each (20).
# New findings of coverage go to the build directory; a crash stays there as a file and ends the run.
set -eu

build=$1
seconds=${2:-20}
meson=${VENV:-.venv}/bin/meson
if [ ! -e "$build/build.ninja" ]; then
    mkdir -p "$build"
    CC=clang "$meson" setup "$build" -Dpython=disabled -Dtests=false -Dfuzz=true -Ddefault_library=static \
        -Db_lundef=false >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
fi
"${VENV:-.venv}/bin/ninja" -C "$build" --quiet

for target in fuzz/fuzz_*.c; do
    name=$(basename "$target" .c)
    mkdir -p "$build/corpus/$name" "fuzz/corpus/$name"
    log=$build/$name.log
    if [ ! -x "$build/fuzz/$name" ]; then
        echo "$name: not built"
        continue
    fi
    if ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=$([ "$name" = fuzz_codec ] && echo 0 || echo 1)} "$build/fuzz/$name" -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="$build/$name-" "$build/corpus/$name" "fuzz/corpus/$name" >"$log" 2>&1; then
        echo "$name: $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs/p' "$log")"
    else
        tail -n 60 "$log"
        exit 1
    fi
done
