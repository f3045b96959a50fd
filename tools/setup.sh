#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Makes a machine ready: system packages (Debian and its kin, as root, only what is missing) and a virtual
# environment with pinned tools. Quick when there is nothing to do.
#
#   tools/setup.sh GROUP...        groups: build test check docs
#
# PYTHON  the interpreter to build for   (python3)
# VENV    where the environment goes     (.venv)
set -eu

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}
groups=${*:-build test}

say() { printf 'setup: %s\n' "$*" >&2; }

command_package() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

missing=
wished= # not every distribution has it as a package, and what needs it is skipped without it
command_package "$python" python3
for group in $groups; do
    case $group in
    build)
        command_package gcc gcc
        command_package pkg-config pkg-config
        echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || missing="$missing libc6-dev"
        if command -v "$python" >/dev/null 2>&1; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
            "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || missing="$missing python3-dev"
        else
            missing="$missing python3-venv python3-dev"
        fi
        ;;
    test)
        command_package g++ g++
        pkg-config --exists cmocka 2>/dev/null || missing="$missing libcmocka-dev"
        command -v chromium >/dev/null 2>&1 || wished="$wished chromium"
        [ -d /usr/share/fonts/truetype/dejavu ] || missing="$missing fonts-dejavu-core"
        ;;
    check)
        command_package clang clang
        command_package clang-tidy clang-tidy
        command_package cppcheck cppcheck
        command_package valgrind valgrind
        command_package spin spin
        ;;
    docs) ;;
    *)
        say "no group '$group' (build, test, check, docs)"
        exit 2
        ;;
    esac
done

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

install() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    }
}

need() {
    [ $# -gt 0 ] || return 0
    can_install || {
        say "please install (names as in Debian): $*"
        exit 1
    }
    install "$@"
}

# shellcheck disable=SC2086  # lists of names
need $missing
for package in $wished; do
    { can_install && install "$package"; } || say "without $package the tests that need it are skipped"
done
case " $groups " in
*" check "*)
    # The sanitizers' and the fuzzer's libraries are a package of their own, which only clang itself can tell.
    echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }' |
        clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null || need libclang-rt-dev
    ;;
esac

# The stamp names what the environment was made from; another content makes it anew or adds to it.
key() { cat "$@" | cksum | tr ' ' -; }

base=$("$python" -c 'import sys; print(sys.version, sys.base_prefix)' | cksum | tr ' ' -)
if [ ! -e "$venv/.made-for-$base" ]; then
    say "making $venv with $("$python" --version)"
    # Not with an interpreter that lives in what is about to be removed.
    python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        say "$python can't make a virtual environment (on Debian: apt-get install python3-venv)"
        exit 1
    }
    touch "$venv/.made-for-$base"
fi

for group in $groups; do
    wanted=tools/requirements-$group.txt
    stamp=$venv/.have-$group-$(key "$wanted" tools/constraints.txt)
    if [ ! -e "$stamp" ]; then
        say "installing $wanted into $venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$wanted" -c tools/constraints.txt
        rm -f "$venv/.have-$group-"*
        touch "$stamp"
    fi
done
