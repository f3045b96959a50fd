/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_FACE_TABLE_H
#define TERCIO_FACE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

extern const tercio_host tercio__table_host; /* host_user is the const tercio_table * */

/* Returns: 0; TERCIO_EINVAL: a size, a name or a function is missing, or two tasks have one name. */
int tercio__table_check(const tercio_table *);
/* Of names, out_size and order; never 0. */
uint64_t tercio__table_hash(const tercio_table *);
/* Task number `task`; NULL when there is none. */
const tercio_task *tercio__table_task(const tercio_table *, size_t task);

#endif
