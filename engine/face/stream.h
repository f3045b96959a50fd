/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_FACE_STREAM_H
#define TERCIO_FACE_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

/* Makes what a failed task, init or exit left into result->code and result->message. For every result of a pool with
 * a table that reaches the user on another way than tercio__face_next: tercio_finish, tercio_failure. */
void tercio__face_explain(tercio_result *);
int tercio__face_next(tercio_run *, double timeout, tercio_result *);
void tercio__face_release(tercio_run *, tercio_result *); /* before the engine's own release */
void tercio__face_close(tercio_run *);                    /* before the run is freed */
/* Opens the run of a checked task. */
int tercio__face_open(tercio_pool *, unsigned task, uint64_t layout, size_t in_size, const tercio_map_options *,
                      tercio_run **);

#endif
