#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Builds the extension with the address and undefined behaviour sanitizers, into a place of its own, and runs a part of
# the Python battery with their libraries preloaded: what crosses the border in every way there is, and what goes wrong.
# $1: build directory. What the interpreter itself keeps to its end is no leak of ours, so leaks aren't looked for;
# crashes belong to the tests, so their signals are left alone; what is freed is kept for a while, so memory isn't flat;
# and pandas and pyarrow are large libraries that were built without the sanitizers, so their tests are left out.
set -eu

build=$1
venv=${VENV:-.venv}
again=
[ ! -e "$build/build.ninja" ] || again=--reconfigure # new files are found then
mkdir -p "$build"
"$venv/bin/meson" setup $again "$build" -Dpython=enabled -Dtests=false -Ddefault_library=static -Db_lundef=false \
    -Db_sanitize=address,undefined --prefix=/ "-Dpython.purelibdir=/package" "-Dpython.platlibdir=/package" \
    >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
"$venv/bin/ninja" -C "$build" --quiet
rm -rf "$build/installed"
"$venv/bin/meson" install -C "$build" --no-rebuild --quiet --tags python-runtime --destdir "$(realpath "$build")/installed"

export ASAN_OPTIONS="detect_leaks=0:handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:detect_stack_use_after_return=0:allocator_may_return_null=1:alloc_dealloc_mismatch=0:log_path=$(realpath "$build")/report"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:log_path=$(realpath "$build")/report"
rm -f "$build"/report.*
log=$build/battery.log
failed=0
PYTHONPATH=$(realpath "$build")/installed/package \
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
    timeout --kill-after=20 900 "$venv/bin/python" -m pytest -q --timeout 240 \
    tests/python/test_codec.py tests/python/test_arrays.py tests/python/test_errors.py \
    tests/python/test_faults_pickling.py tests/python/test_faults_deaths.py tests/python/test_faults_callbacks.py \
    -k "${2:-not forkserver and not spawn and not memory_stays_flat and not pandas and not pyarrow}" >"$log" 2>&1 || failed=1
for report in "$build"/report.*; do
    # There are warnings, too.
    if [ -e "$report" ] && grep -q -e 'ERROR:' -e 'runtime error' "$report"; then
        head -n 60 "$report"
        failed=1
        break
    fi
done
tail -n "$([ $failed = 0 ] && echo 1 || echo 60)" "$log"
exit $failed
