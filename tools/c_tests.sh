#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs the C tests of one build directory, with one line of output when all is well. Sanitizers end a process at
# their first finding; what a test leaves in memory at its end is a finding too.
set -eu

# A worker that is killed in the middle is part of the tests: its sanitizer must not turn that into a report.
export ASAN_OPTIONS="abort_on_error=0:detect_leaks=1:handle_segv=0:handle_abort=0:detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:handle_segv=0:handle_abort=0"

log=$1/tests.log
if timeout --kill-after=20 1800 "${VENV:-.venv}/bin/meson" test -C "$1" --no-rebuild --print-errorlogs --timeout-multiplier 4 >"$log" 2>&1; then
    sed -n 's/^Ok: */c tests passed: /p' "$log"
else
    tail -n 200 "$log"
    exit 1
fi
