/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_ORDER_H
#define TERCIO_POOL_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "state/message.h"
#include "tercio.h"

/* The worker may be handed message `turn` of the run: it goes on in its order, and takes no place that a message on
 * pending needs. Only asked while the run has any there. */
bool tercio__may_have(const tercio__worker *, const tercio_run *, uint64_t turn);
/* A worker that can't have the pending message now will be able to, so the message waits; false: any worker may have it. */
bool tercio__is_worth_waiting(tercio_pool *, const tercio__chunk *);
/* The worker is new: what its predecessor has begun counts no more. */
void tercio__order_anew(const tercio__worker *);
/* What the worker runs has taken long, against what such messages take. If not, somebody looks again when it will have. */
bool tercio__is_long(tercio__worker *worker);
/* Also where it has begun this one, and left it unfinished. */
bool tercio__keeps_order(const tercio__worker *worker, const tercio_run *run, uint64_t turn);

#endif
