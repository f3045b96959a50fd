/* SPDX-License-Identifier: MIT
 *
 * Frees a pool that has come to its end, or a forked child's copy of one.
 */
#ifndef TERCIO_POOL_FREE_H
#define TERCIO_POOL_FREE_H

#include "tercio.h"

/* Closes the pool's own descriptors and frees what tercio_open allocates and keeps in its place, the pool too. */
void tercio__pool_free(tercio_pool *);

#endif
