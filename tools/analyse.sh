#!/bin/sh
# SPDX-License-Identifier: MIT
#
# clang-tidy and cppcheck over the engine and the extension. $1: a build directory that has compile_commands.json.
# Files that have not changed since they were last found clean are skipped: clang-tidy is the slow part.
set -eu

build=$1
clean=$build/tidy-clean
mkdir -p "$clean"

# Everything a verdict rests on, but the file itself.
base=$(cat .clang-tidy include/*.h engine/*/*.h python/ext/*.h meson.build 2>/dev/null | cksum | tr ' ' -)
headers=$(${VENV:-.venv}/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
todo=
for file in engine/*.c engine/*/*.c engine/base/fault/*.c engine/plat/linux/*.c python/ext/*.c; do
    [ -e "$file" ] || continue
    stamp=$clean/$(echo "$file" | tr / _)-$base-$(cksum <"$file" | tr ' ' -)
    [ -e "$stamp" ] || todo="$todo $file"
done

tidy_one() {
    file=$1
    case $file in
    engine/base/fault/*) points=-DTERCIO_FAULT_POINTS ;;
    *) points= ;;
    esac
    clang-tidy --quiet --warnings-as-errors='*' "$file" -- -std=c11 -D_GNU_SOURCE $points -Iinclude -Iengine \
        -isystem "$headers" 2>/dev/null || return 1
    rm -f "$clean/$(echo "$file" | tr / _)-"*
    touch "$clean/$(echo "$file" | tr / _)-$base-$(cksum <"$file" | tr ' ' -)"
}

for file in $todo; do
    tidy_one "$file" || { echo "clang-tidy: $file"; exit 1; }
done

# nullPointerRedundantCheck misreads `while ((x = f()) == NULL)`; of Python's macros it has to be told.
check() {
    cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
        --error-exitcode=1 --suppress=missingIncludeSystem --suppress=nullPointerRedundantCheck -D_GNU_SOURCE \
        -D__linux__ -Iinclude -Iengine --max-configs=4 "$@"
}
check engine
if ls python/ext/*.c >/dev/null 2>&1; then
    check --library=python --suppress=autoVariables '-DPy_BEGIN_ALLOW_THREADS={' '-DPy_END_ALLOW_THREADS=}' python/ext
fi
