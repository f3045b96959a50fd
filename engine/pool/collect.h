/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_COLLECT_H
#define TERCIO_POOL_COLLECT_H

#include "state/message.h"
#include "tercio.h"

/* Reads all that workers have said, reclaims slots, hands out pending work; and rings all those who have something of it. */
void tercio__pump(tercio_pool *);
/* Its two halves, for the supervisor, which has the host notified by itself. */
void tercio__gather(tercio_pool *);
void tercio__pump_worker(tercio__worker *);

#endif
