/* SPDX-License-Identifier: MIT
 *
 * Interrupts what a worker runs. The supervisor kills the worker when it goes on beyond the grace (deadlines.c).
 */
#ifndef TERCIO_POOL_INTERRUPT_H
#define TERCIO_POOL_INTERRUPT_H

#include <stdint.h>

#include "state/message.h"

/* The message that the worker runs, or would take next; NULL: there is none. One that it has finished lies before it, though
 * its slot may not be reclaimed yet. */
tercio__chunk *tercio__running_chunk(tercio__worker *, uint64_t *sequence);
/* Asks the worker to stop message `sequence`, which it has taken; the supervisor kills it after the grace. */
void tercio__interrupt_worker(tercio__worker *, uint64_t sequence);

#endif
