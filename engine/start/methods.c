/* SPDX-License-Identifier: MIT
 *
 * The table of start methods: a line for each of them.
 */
#include "start/methods.h"

#include <string.h>

#include "start/start.h"
#include "tercio.h"

static const struct {
    const char *name;
    const tercio__starter *starter;
} methods[] = {
    [TERCIO_DEFAULT] = {"default", NULL},
    [TERCIO_FORK] = {"fork", &tercio__fork_starter},
    [TERCIO_SPAWN] = {"spawn", &tercio__spawn_starter},
    [TERCIO_FORKSERVER] = {"forkserver", &tercio__forkserver_starter},
    [TERCIO_THREADING] = {"threading", &tercio__threading_starter},
};

enum { N_METHODS = sizeof methods / sizeof *methods };

static bool exists(tercio_method method)
{
    return (int)method >= 0 && (int)method < N_METHODS;
}

const tercio__starter *tercio__starter_of(tercio_method method)
{
    return exists(method) ? methods[method].starter : NULL;
}

int tercio_method_parse(const char *name, tercio_method *method)
{
    if (name == NULL || method == NULL)
        return TERCIO_EINVAL;
    for (int i = 0; i < N_METHODS; i++)
        if (strcmp(name, methods[i].name) == 0) {
            *method = (tercio_method)i;
            return 0;
        }
    return TERCIO_EINVAL;
}

const char *tercio_method_name(tercio_method method)
{
    if (method == TERCIO_DEFAULT)
        method = TERCIO_FORK;
    return exists(method) ? methods[method].name : "unknown";
}
