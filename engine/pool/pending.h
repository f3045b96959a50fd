/* SPDX-License-Identifier: MIT
 *
 * Messages that wait in the pool: those that no worker had room for, and those that came back from a worker which died,
 * ended, or was relieved of them. Each owns a copy of its bytes.
 */
#ifndef TERCIO_POOL_PENDING_H
#define TERCIO_POOL_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "state/message.h"
#include "tercio.h"

/* Puts it on pool->pending instead. */
int tercio__defer(tercio_run *, const tercio_message *);
/* A message that its worker will not finish goes back to pending, in front, without the items that are done. */
/* `seen`: the worker had begun it, and what it was lent can't be lent again. */
int tercio__requeue(tercio__worker *, uint64_t sequence, bool seen);
/* Takes from the workers' rings what no one has begun, of one run or of all (NULL), and drops it. */
void tercio__take_back(tercio_pool *, tercio_run *);
/* A pending message of one item is dropped; its answer is TERCIO_ECANCELED. */
void tercio__cancel_pending(tercio_pool *, tercio__chunk *);
/* What is pending, of one run or of all (NULL), is dropped without an answer. */
void tercio__drop_pending(tercio_pool *, tercio_run *);
/* Takes out the message at *at, which is one of the run, and frees it. */
void tercio__unlink_pending(tercio_pool *, tercio__chunk **at, tercio_run *);

#endif
