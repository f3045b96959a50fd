/* SPDX-License-Identifier: MIT
 *
 * Ends a worker by force: a process is killed, a thread is left behind with its channel.
 */
#ifndef TERCIO_POOL_FORCE_H
#define TERCIO_POOL_FORCE_H

#include "state/message.h"

/* Ends the worker by force: a process is killed, a thread is left behind. The lock is free meanwhile where it
 * is a thread. */
void tercio__kill_worker(tercio__worker *);
/* As tercio__kill_worker; but a thread is asked to stop, and left behind by the supervisor after the grace. */
void tercio__end_by_force(tercio__worker *);

#endif
