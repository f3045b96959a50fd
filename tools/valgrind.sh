#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The C examples under valgrind, which knows nothing of how spawn shares its memory with a child: fork and threads.
# $1: a build directory.
set -eu

run() {
    timeout --kill-after=20 200 valgrind -q --error-exitcode=9 --leak-check=full \
        --errors-for-leak-kinds=definite,indirect --trace-children=yes "$@" >"$log" 2>&1 || {
        echo "valgrind: $*"
        cat "$log"
        exit 1
    }
}

log=$1/valgrind.log
examples=$1/examples/c
for method in fork threading; do
    run "$examples/hello" $method
    run "$examples/wordcount" $method docs
done
run "$examples/crash" fork
echo 'valgrind: the examples are clean'
