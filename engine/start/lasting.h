/* SPDX-License-Identifier: MIT
 *
 * The kernel may be asked to end a process together with the thread that started it. This tells whether the calling
 * thread lasts as long as the pool: the main thread does, and so does the supervisor.
 */
#ifndef TERCIO_START_LASTING_H
#define TERCIO_START_LASTING_H

#include <stdbool.h>

#include "tercio.h"

/* The thread that calls this ends no sooner than the process, or than the pool's last worker. Not under the lock. */
bool tercio__lasting_thread(tercio_pool *);

#endif
