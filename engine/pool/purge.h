/* SPDX-License-Identifier: MIT
 *
 * How shared memory is given back. What was used lately is kept while large things move, and given back after a second in
 * which none did, by the parent and, when they are asked to, by its workers. The memory of dead workers goes as soon as no
 * result lies there.
 */
#ifndef TERCIO_POOL_PURGE_H
#define TERCIO_POOL_PURGE_H

#include <stdint.h>

#include "tercio.h"

/* Blocks of so many bytes were filled or came. */
void tercio__note_moved(tercio_pool *, uint64_t bytes);
/* The supervisor's: gives free memory back when nothing large moves any more. Returns: when to look again;
 * 0: not before something moves. */
uint64_t tercio__purge(tercio_pool *);
/* Gives back the memory of dead workers' arenas, once no result lies there. */
void tercio__discard_dead(tercio_pool *);

#endif
