/* SPDX-License-Identifier: MIT
 *
 * Start methods by name.
 */
#include <string.h>
#include <unistd.h>

#include "plat/plat.h"
#include "tercio.h"

static const char *const names[] = {"default", "fork", "spawn", "forkserver", "threading"};

int tercio_method_parse(const char *name, tercio_method *method)
{
    if (name == NULL || method == NULL)
        return TERCIO_EINVAL;
    for (int i = TERCIO_DEFAULT; i <= TERCIO_THREADING; i++)
        if (strcmp(name, names[i]) == 0) {
            *method = (tercio_method)i;
            return 0;
        }
    return TERCIO_EINVAL;
}

const char *tercio_method_name(tercio_method method)
{
    if (method == TERCIO_DEFAULT)
        method = TERCIO_FORK;
    return method >= TERCIO_FORK && method <= TERCIO_THREADING ? names[method] : "unknown";
}

unsigned tercio_usable_cpus(void)
{
    return tercio__cpus_usable();
}
