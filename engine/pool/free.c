/* SPDX-License-Identifier: MIT
 *
 * Frees a pool that has come to its end, or a forked child's copy of one.
 */
#include "pool/free.h"

#include <stdlib.h>

#include "base/forks.h"
#include "state/pool.h"
#include "tercio.h"

void tercio__pool_free(tercio_pool *pool)
{
    const int own[] = {pool->caller_bell, pool->supervisor_bell, pool->set, pool->lifeline[0], pool->lifeline[1]};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        tercio__owned_close(own[i], pool->fork_generation);
    for (size_t i = 0; i < pool->n_descriptors; i++)
        tercio__owned_copy_close(pool->descriptors[i], pool->fork_generation, pool->descriptor_identities[i]);
    free(pool->descriptors);
    free(pool->descriptor_identities);
    free(pool->workers);
    free(pool->hot);
    free(pool);
}
