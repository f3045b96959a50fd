#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the shared library ($1) exports is what the header ($2) declares: nothing more, nothing less.
set -eu

shown=$(nm -D --defined-only "$1" | awk '$2 ~ /^[A-Z]$/ && $2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
declared=$(sed -n 's/^TERCIO_API .*[ *]\(tercio_[a-z_0-9]*\)(.*/\1/p' "$2" | sort)
[ -n "$declared" ]

printf '%s\n' "$shown" >"${TMPDIR:-/tmp}/tercio-shown.$$"
printf '%s\n' "$declared" | diff - "${TMPDIR:-/tmp}/tercio-shown.$$" && code=0 || code=$?
rm -f "${TMPDIR:-/tmp}/tercio-shown.$$"
exit "$code"
