#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Checks each model for all of its interleavings, and then that it can fail: every switch that its head names breaks
# the algorithm on purpose, and the checker has to find that.
set -eu

cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# check MODEL [SWITCH]: prints the number of states, or what was found.
check() {
    rm -rf "$work"/*
    ( cd "$work" && spin -a ${2:+-D"$2"} "$models/$1.pml" >spin.log 2>&1 && gcc -O2 -w -DSAFETY -DMEMLIM=2048 -DVECTORSZ=2048 -o pan pan.c ) \
        || { cat "$work/spin.log"; return 2; }
    ( cd "$work" && timeout 120 ./pan -m2000000 >pan.log 2>&1 ) || { cat "$work/pan.log"; return 2; }
    grep -q 'errors: 0' "$work/pan.log" && ! grep -q 'max search depth too small\|out of memory' "$work/pan.log"
}
models=$(pwd)

failed=0
for file in *.pml; do
    model=${file%.pml}
    if check "$model"; then
        echo "$model: holds ($(sed -n 's/^ *\([0-9e.+]*\) states, stored.*/\1/p' "$work/pan.log") states)"
    else
        grep -E 'pan:|errors:|error:' "$work/pan.log" || true
        echo "$model: FAILS"
        failed=1
    fi
    for switch in $(sed -n 's/^ \*   \([A-Z_]*\) .*/\1/p' "$file"); do
        found=0
        check "$model" "$switch" || found=$?
        case $found in
        1) echo "$model, $switch: found" ;;
        *) echo "$model, $switch: NOT FOUND" && failed=1 ;;
        esac
    done
done
exit $failed
