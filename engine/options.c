/* SPDX-License-Identifier: MIT
 *
 * Structs that cross the border, read with care for their size: the program may be older than this library, or newer.
 */
#include <string.h>

#include "face.h"

int tercio__struct_read(void *to, size_t to_size, const void *from, size_t least)
{
    size_t size;

    memset(to, 0, to_size);
    if (from == NULL)
        return TERCIO_EINVAL;
    memcpy(&size, from, sizeof size);
    /* A size beyond a page is garbage, and looking for zeros there might crash. */
    if (size < least || size > 4096)
        return TERCIO_EINVAL;
    for (size_t i = to_size; i < size; i++)
        if (((const unsigned char *)from)[i])
            return TERCIO_EINVAL;
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return 0;
}

int tercio__options_read(tercio_options *to, const tercio_options *from)
{
    return tercio__struct_read(to, sizeof *to, from, offsetof(tercio_options, method));
}

int tercio__map_options_read(tercio_map_options *to, const tercio_map_options *from)
{
    if (from) {
        int error = tercio__struct_read(to, sizeof *to, from, sizeof from->size);
        return error == 0 && !(to->timeout >= 0) ? TERCIO_EINVAL : error; /* below 0, or not a number */
    }
    memset(to, 0, sizeof *to);
    to->size = sizeof *to;
    return 0;
}

void tercio__result_write(tercio_result *to, const tercio_result *from)
{
    size_t size = to->size;
    memcpy(to, from, size < sizeof *from ? size : sizeof *from);
    to->size = size;
}
