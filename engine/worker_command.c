/* SPDX-License-Identifier: MIT
 *
 * tercio-worker: the worker of libraries that have no main of their own. A library whose tasks are in the table
 * `tasks` of libx.so opens its pools with
 *
 *     char *const worker[] = {"tercio-worker", "libx.so:tasks", NULL};
 *     options.worker_argv = worker;
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tercio.h"

enum { MISUSED = 2, NOT_FOUND = 127 };

int main(int argc, char **argv)
{
    char *library = argc == 3 ? argv[1] : NULL, *symbol = library ? strrchr(library, ':') : NULL;
    if (symbol == NULL || symbol == library || symbol[1] == '\0') {
        (void)fprintf(stderr, "usage: %s LIBRARY:TABLE, as worker_argv of tercio_open, which adds an argument\n",
                      argc ? argv[0] : "tercio-worker");
        return MISUSED;
    }
    *symbol++ = '\0';
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    const tercio_table *table = opened ? dlsym(opened, symbol) : NULL;
    if (table == NULL) {
        const char *why = dlerror();
        (void)fprintf(stderr, "tercio-worker: %s: %s\n", library, why ? why : "no such table");
        return NOT_FOUND;
    }
    tercio_worker_entry(argc, argv, table);
    (void)fprintf(stderr, "tercio-worker: %s is not what tercio_open adds\n", argv[2]);
    return MISUSED;
}
