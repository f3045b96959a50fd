/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_BASE_ABI_H
#define TERCIO_BASE_ABI_H

#include <stddef.h>

#include "tercio.h"

/* Copy what the caller's struct holds into a whole one of ours: an older, smaller struct lacks fields, which are then
 * zero, the default; a newer, larger one must have zeros where we know no field.
 * Returns: 0; TERCIO_EINVAL: NULL (map options may be NULL: all defaults), no size, or fields that we don't know. */
int tercio__options_read(tercio_options *to, const tercio_options *from);
int tercio__map_options_read(tercio_map_options *to, const tercio_map_options *from);
/* The same look at a struct that stays where it is; `least` is the smallest size that ever was. */
int tercio__struct_check(const void *from, size_t known, size_t least);
/* A host's callbacks up to `signals` were there from the first version on. */
int tercio__host_check(const tercio_host *);

/* Messages are looked at one by one: most are as large as ours. */
static inline int tercio__message_check(const tercio_message *message)
{
    if (message && message->size == sizeof *message)
        return 0;
    return tercio__struct_check(message, sizeof *message, offsetof(tercio_message, attended));
}

/* Structs that the library fills go the other way: the caller's `size` says how much of them it knows. A smaller struct
 * gets its part alone; the fields of a larger one that we don't know become zero; its `size` stays. */
void tercio__struct_write(void *to, const void *from, size_t from_size);
/* A size that such a struct can have. Returns: 0; TERCIO_EINVAL: NULL, smaller than `least`, or beyond a page. */
int tercio__struct_fits(const void *to, size_t least);

/* All of tercio_result up to `internal` was there from the first version on, and release needs it. */
static inline int tercio__result_check(const tercio_result *result)
{
    return tercio__struct_fits(result, offsetof(tercio_result, internal) + sizeof result->internal);
}

static inline void tercio__result_write(tercio_result *to, const tercio_result *from)
{
    tercio__struct_write(to, from, sizeof *from);
}

#endif
