/* SPDX-License-Identifier: MIT
 *
 * tercio.h in a C++ program: it compiles, it links, and names are C's. */
#include <tercio.h>

int main() {
    tercio_options options = {};
    options.size = sizeof options;
    return tercio_version() >= TERCIO_VERSION && options.n_workers == 0 ? 0 : 1;
}
