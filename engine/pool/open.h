/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_OPEN_H
#define TERCIO_POOL_OPEN_H

#include <stdint.h>

#include "tercio.h"

/* The face whose tasks a pool runs, where the caller has given no host. */
typedef struct {
    const tercio_host *host;
    void *host_user;
    uint64_t table_hash;              /* workers compare theirs; 0: there is no table */
    void (*explain)(tercio_result *); /* makes code and message of what a failed task, init or exit left */
} tercio__front;

/* tercio_open, whose caller has looked at the table. *out is NULL on an error. */
int tercio__pool_open(tercio_pool **out, const tercio_options *, const tercio__front *);

#endif
