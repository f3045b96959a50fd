/* SPDX-License-Identifier: MIT
 *
 * Returns shared memory to the system. Pages that were used lately stay committed while large payloads move, and are
 * decommitted after a second in which none moved: the parent decommits its own, and asks its workers to decommit
 * theirs. The memory of dead workers is discarded as soon as no result is in it.
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
