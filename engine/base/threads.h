/* SPDX-License-Identifier: MIT
 *
 * The threads that the engine starts for itself in this process: supervisors, and workers under threading. They hold no
 * lock that a forked child would miss, so a program that forks doesn't count them among its own. A thread of a pool can't
 * close that pool.
 */
#ifndef TERCIO_BASE_THREADS_H
#define TERCIO_BASE_THREADS_H

#include <stdbool.h>

#include "tercio.h"

/* Threads of the engine's own in this process: they hold no lock that a forked child would miss. */
int tercio__count_own_thread(int change);
/* This thread is the pool's supervisor, or one of its workers. */
void tercio__own_thread_of(const tercio_pool *, bool supervises);

#endif
