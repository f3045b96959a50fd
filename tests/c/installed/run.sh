#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs the library into a folder of its own, then builds and runs programs outside the tree against it, as a user
# would: found by pkg-config, with each compiler there is, shared and static, under each start method.
#
#     run.sh [MESON]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
meson=${1:-meson}
# In a test run meson says where it is itself.
[ $# -gt 0 ] || meson=${MESONINTROSPECT:-meson introspect}
meson=${meson% introspect}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

fail() {
    echo "installed: $*" >&2
    exit 1
}

$meson setup "$work/build" "$root" --prefix "$work/prefix" --libdir lib -Dtests=false -Dpython=disabled \
    >"$work/log" 2>&1 || { cat "$work/log"; fail 'meson setup'; }
$meson install -C "$work/build" >"$work/log" 2>&1 || { cat "$work/log"; fail 'meson install'; }

export PKG_CONFIG_PATH="$work/prefix/lib/pkgconfig"
export LD_LIBRARY_PATH="$work/prefix/lib"
export PATH="$work/prefix/bin:$PATH"
pkg-config --exists tercio || fail 'pkg-config does not find it'
[ "$(pkg-config --modversion tercio)" = "$(sed -n "s/^  version: '\(.*\)',/\1/p" "$root/meson.build")" ] ||
    fail "pkg-config says $(pkg-config --modversion tercio)"

# Each call has its man page, and none of them is empty or makes the formatter complain.
pages="$work/prefix/share/man"
for name in tercio $(sed -n 's/^TERCIO_API .*[ *]\(tercio_[a-z_]*\)(.*/\1/p' "$root/include/tercio.h"); do
    [ -s "$pages/man3/$name.3" ] || fail "no man page of $name"
done
[ -s "$pages/man1/tercio-worker.1" ] || fail 'no man page of tercio-worker'
if command -v groff >/dev/null 2>&1; then
    for page in "$pages"/man1/*.1 "$pages"/man3/*.3; do
        ! grep -q '^\.so ' "$page" || continue
        complaints=$(groff -man -Tascii -ww -z "$page" 2>&1)
        [ -z "$complaints" ] || fail "$complaints"
    done
fi

cp "$root/examples/c/hello.c" "$here/library.c" "$here/uses_library.c" "$work"
cd "$work"
shared=$(pkg-config --libs tercio)
static=$(pkg-config --static --libs tercio | sed 's/-ltercio/-l:libtercio.a/')

run_hello() {
    for method in fork spawn forkserver threading; do
        [ "$(timeout 60 "$1" $method | tail -n 1)" = '8 squared is 64' ] || fail "$1 $method"
    done
}

tried=0
for compiler in 'gcc -std=c11' 'clang -std=c11' 'g++ -x c++' 'clang++ -x c++'; do
    command -v "${compiler%% *}" >/dev/null 2>&1 || continue
    name=$(echo "$compiler" | tr -c 'a-z0-9\n' _)
    # What isn't named in a struct is zero on purpose; the C++ compilers warn of that.
    cflags="-Wall -Wextra -Werror -Wno-missing-field-initializers -O1 $(pkg-config --cflags tercio)"
    # shellcheck disable=SC2086
    $compiler $cflags hello.c -o "hello-$name-shared" -x none $shared ||
        fail "$compiler, shared"
    # shellcheck disable=SC2086
    $compiler $cflags hello.c -o "hello-$name-static" -x none $static ||
        fail "$compiler, static"
    run_hello "./hello-$name-shared"
    (unset LD_LIBRARY_PATH && run_hello "./hello-$name-static") || fail "$compiler: static is not"
    tried=$((tried + 1))
done
[ "$tried" -gt 0 ] || fail 'there is no compiler'

# A library without a main names the worker command.
# shellcheck disable=SC2086
gcc -std=c11 -fPIC -shared $cflags library.c -o libsquares.so $shared
# shellcheck disable=SC2086
gcc -std=c11 $cflags uses_library.c -o uses_library -L. -lsquares $shared
LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$work"
for method in fork spawn forkserver threading; do
    [ "$(timeout 60 ./uses_library $method)" = 204 ] || fail "tercio-worker, $method"
done
if tercio-worker 2>/dev/null || tercio-worker ./libsquares.so:squares_table nonsense 2>/dev/null; then
    fail 'tercio-worker works without being one'
fi
echo "installed: $tried compilers, shared and static"
