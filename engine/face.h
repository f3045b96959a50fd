/* SPDX-License-Identifier: MIT
 *
 * What the C face (table.c, map.c, stream.c) and the pool's own rooms know of each other. The C face is a host like
 * any other: tasks of a table are put behind struct tercio_host, and what a result's bytes mean is decided here.
 *
 *     context of a run     struct tercio__face_context: which task, and how items lie in a message
 *     message, side by side    n_items * in_size bytes, in parts[0], or in parts[1] when they are many
 *     message, framed      for each item struct tercio__face_frame and its bytes, padded to 8; an item flagged
 *                          TERCIO__FACE_IN_BLOCK lies in the next of the blocks instead
 *     answer               out_size bytes, or what tercio_reply made, in parts[0], or in parts[1] when large
 *     failed answer        the text of tercio_fail
 *     left behind (tercio_leave of enter, init and exit) when failed: int32_t code, then text; else the reply
 */
#ifndef TERCIO_FACE_H
#define TERCIO_FACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

/* ---- Structs that cross the border ------------------------------------------------------------------------------- */

/* Copy what the caller's struct holds into a whole one of ours: an older, smaller struct lacks fields, which are then
 * zero, the default; a newer, larger one must have zeros where we know no field.
 * Returns: 0; TERCIO_EINVAL: NULL (map options may be NULL: all defaults), no size, or fields that we don't know. */
int tercio__options_read(tercio_options *to, const tercio_options *from);
int tercio__map_options_read(tercio_map_options *to, const tercio_map_options *from);
/* Any other struct; `least` is the smallest size that ever was. */
int tercio__struct_read(void *to, size_t to_size, const void *from, size_t least);
/* The same look at a struct that stays where it is. */
int tercio__struct_check(const void *from, size_t known, size_t least);
/* A host's callbacks up to `signals` were there from the first version on. */
int tercio__host_check(const tercio_host *);
/* Messages are looked at one by one: most are as large as ours. */
static inline int tercio__message_check(const tercio_message *message)
{
    if (message && message->size == sizeof *message)
        return 0;
    return tercio__struct_check(message, sizeof *message, offsetof(tercio_message, attended));
}

/* Structs that the library fills go the other way: the caller's `size` says how much of them it knows. A smaller struct
 * gets its part alone; the fields of a larger one that we don't know become zero; its `size` stays. */
void tercio__struct_write(void *to, const void *from, size_t from_size);
/* A size that such a struct can have. Returns: 0; TERCIO_EINVAL: NULL, smaller than `least`, or beyond a page. */
int tercio__struct_fits(const void *to, size_t least);

/* All of tercio_result up to `internal` was there from the first version on, and release needs it. */
static inline int tercio__result_check(const tercio_result *result)
{
    return tercio__struct_fits(result, offsetof(tercio_result, internal) + sizeof result->internal);
}
static inline void tercio__result_write(tercio_result *to, const tercio_result *from)
{
    tercio__struct_write(to, from, sizeof *from);
}

/* ---- Tables (table.c) -------------------------------------------------------------------------------------------- */

extern const tercio_host tercio__table_host; /* host_user is the const tercio_table * */

/* Returns: 0; TERCIO_EINVAL: a size, a name or a function is missing, or two tasks have one name. */
int tercio__table_check(const tercio_table *);
/* Of names, out_size and order; never 0. */
uint64_t tercio__table_hash(const tercio_table *);
/* Task number `task`; NULL when there is none. */
const tercio_task *tercio__table_task(const tercio_table *, size_t task);

/* page.table_hash of the pool that a worker belongs to (worker.c). */
uint64_t tercio__call_table_hash(const tercio_call *);

/* ---- Results of table pools (stream.c) --------------------------------------------------------------------------- */

/* Makes what a failed task, init or exit left into result->code and result->message. For every result of a pool with
 * a table that reaches the user on another way than tercio__face_next: tercio_finish, tercio_failure. */
void tercio__face_explain(tercio_result *);

/* A run of the C face that the user holds (tercio_stream, tercio_submit): run->face. */
struct tercio__face;
int tercio__face_next(tercio_run *, double timeout, tercio_result *);
void tercio__face_release(tercio_run *, tercio_result *); /* before the engine's own release */
void tercio__face_close(tercio_run *);                    /* before the run is freed */

/* ---- How items travel -------------------------------------------------------------------------------------------- */

enum { TERCIO__FACE_SIDE_BY_SIDE, TERCIO__FACE_FRAMED };
#define TERCIO__FACE_MAGIC UINT32_C(0x66616365)
#define TERCIO__FACE_IN_BLOCK UINT32_C(1)
/* Items and answers above it travel as blocks, which are mapped instead of copied once more. */
#define TERCIO__FACE_LARGE ((size_t)16 << 10)

typedef struct {
    uint32_t magic, task;
    uint64_t layout;
    uint64_t in_size; /* side by side: bytes an item */
} tercio__face_context;

typedef struct {
    uint32_t size; /* bytes in the message */
    uint32_t flags;
} tercio__face_frame;

static inline size_t tercio__face_pad(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* Opens the run of a checked task. */
int tercio__face_open(tercio_pool *, unsigned task, uint64_t layout, size_t in_size, const tercio_map_options *,
                      tercio_run **);

#endif
