/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_WAIT_H
#define TERCIO_POOL_WAIT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

int tercio__run_wait(tercio_run *, double timeout, bool or_room, const sigset_t *);
/* Sleeps on the pool's caller bell until something happened, whatever it is (tercio_finish, tercio_open); with `sigmask`
 * (may be NULL) installed, as tercio_wait has it. The lock is free meanwhile. Returns: 0; TERCIO_EINTERRUPTED;
 * TERCIO_EAGAIN at the deadline. */
int tercio__pool_wait(tercio_pool *, uint64_t deadline, const sigset_t *sigmask);

#endif
