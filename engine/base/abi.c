/* SPDX-License-Identifier: MIT
 *
 * Structs that cross the border, read with care for their size: the program may be older than this library, or newer.
 */
#include "base/abi.h"

#include "tercio.h"
#include <string.h>

/* What every struct begins with; without regard to how it is aligned. */
static size_t size_of(const void *given)
{
    size_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

int tercio__struct_fits(const void *to, size_t least)
{
    /* A size beyond a page is garbage. */
    return to && size_of(to) >= least && size_of(to) <= 4096 ? 0 : TERCIO_EINVAL;
}

int tercio__struct_check(const void *from, size_t known, size_t least)
{
    if (tercio__struct_fits(from, least))
        return TERCIO_EINVAL;
    for (size_t i = known, size = size_of(from); i < size; i++)
        if (((const unsigned char *)from)[i])
            return TERCIO_EINVAL;
    return 0;
}

static int read_struct(void *to, size_t to_size, const void *from, size_t least)
{
    memset(to, 0, to_size);
    if (tercio__struct_check(from, to_size, least))
        return TERCIO_EINVAL;
    memcpy(to, from, size_of(from) < to_size ? size_of(from) : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return 0;
}

void tercio__struct_write(void *to, const void *from, size_t from_size)
{
    size_t size = size_of(to);
    memcpy(to, from, size < from_size ? size : from_size);
    if (size > from_size)
        memset((unsigned char *)to + from_size, 0, size - from_size);
    memcpy(to, &size, sizeof size);
}

int tercio__host_check(const tercio_host *host)
{
    return tercio__struct_check(host, sizeof *host, offsetof(tercio_host, describe));
}

int tercio__options_read(tercio_options *to, const tercio_options *from)
{
    return read_struct(to, sizeof *to, from, offsetof(tercio_options, method));
}

int tercio__map_options_read(tercio_map_options *to, const tercio_map_options *from)
{
    if (from) {
        int error = read_struct(to, sizeof *to, from, sizeof from->size);
        return error == 0 && !(to->timeout >= 0) ? TERCIO_EINVAL : error; /* below 0, or not a number */
    }
    memset(to, 0, sizeof *to);
    to->size = sizeof *to;
    return 0;
}
