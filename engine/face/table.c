/* SPDX-License-Identifier: MIT
 *
 * Tasks of a constant table, put behind the host's callbacks: the worker's side of the C face. How items lie in a
 * message is written down in face.h.
 */
#include "face/table.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/abi.h"
#include "face/framing.h"
#include "state/pool.h"
#include "tercio.h"
#include "worker/call.h"

/* A reply's room is kept from item to item, unless it is larger than this. */
#define KEPT_REPLY ((size_t)1 << 20)
enum { SMALL = 16 }; /* bytes of an answer that has at least this much room */

/* What a worker knows, at *tercio_call_user. Its owner is enter, its end is leave. */
typedef struct {
    const tercio_table *table;
    void *state;
    unsigned char *reply;
    size_t reply_size, reply_room;
    bool wants_reply; /* the task that runs answers through tercio_reply */
    bool is_thread;   /* one of several in its process */
    char message[sizeof(((tercio_result *)0)->message)];
} worker;

/* A run, as a worker sees it. */
typedef struct {
    const tercio_task *task;
    uint64_t layout;
    size_t in_size;
    unsigned char *out; /* task->out_size bytes, and no fewer than SMALL */
} context;

/* ---- The table --------------------------------------------------------------------------------------------------- */

const tercio_task *tercio__table_task(const tercio_table *table, size_t task)
{
    if (task >= table->n_tasks)
        return NULL;
    return (const tercio_task *)(const void *)((const char *)table->tasks + task * table->task_size);
}

#define HAS(table, field) ((table)->size >= offsetof(tercio_table, field) + sizeof(table)->field && (table)->field)

int tercio__table_check(const tercio_table *table)
{
    if (tercio__struct_check(table, sizeof *table, offsetof(tercio_table, init)) ||
        table->task_size < offsetof(tercio_task, out_size) + sizeof(size_t) ||
        table->task_size % _Alignof(tercio_task) != 0 || table->n_tasks == 0 || table->tasks == NULL ||
        table->n_tasks > UINT32_MAX)
        return TERCIO_EINVAL;
    for (size_t i = 0; i < table->n_tasks; i++) {
        const tercio_task *task = tercio__table_task(table, i);
        if (task->name == NULL || task->name[0] == '\0' || task->run == NULL)
            return TERCIO_EINVAL;
        for (size_t k = 0; k < i; k++)
            if (strcmp(tercio__table_task(table, k)->name, task->name) == 0)
                return TERCIO_EINVAL;
    }
    return 0;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t tercio__table_hash(const tercio_table *table)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < table->n_tasks; i++) {
        const tercio_task *task = tercio__table_task(table, i);
        uint64_t out_size = task->out_size;
        hash = hash_bytes(hash, task->name, strlen(task->name) + 1);
        hash = hash_bytes(hash, &out_size, sizeof out_size);
    }
    return hash ? hash : 1;
}

/* ---- What tasks may call ----------------------------------------------------------------------------------------- */

void *tercio_state(tercio_call *call)
{
    const worker *self = *tercio_call_user(call);
    return self ? self->state : NULL;
}

void *tercio_reply(tercio_call *call, size_t size)
{
    worker *self = *tercio_call_user(call);
    if (self == NULL || !self->wants_reply)
        return NULL;
    if (size > self->reply_room || self->reply == NULL) {
        size_t room = size > 256 ? size : 256;
        unsigned char *bytes = malloc(room);
        if (bytes == NULL)
            return NULL;
        free(self->reply);
        self->reply = bytes;
        self->reply_room = room;
    }
    self->reply_size = size;
    return self->reply;
}

int tercio_fail(tercio_call *call, int code, const char *format, ...)
{
    worker *self = *tercio_call_user(call);
    if (self) {
        va_list arguments;
        va_start(arguments, format);
        if (vsnprintf(self->message, sizeof self->message, format, arguments) < 0)
            self->message[0] = '\0';
        va_end(arguments);
    }
    return code;
}

/* ---- The host's callbacks ---------------------------------------------------------------------------------------- */

static void forget_answer(worker *self, bool wants_reply)
{
    if (self->reply_room > KEPT_REPLY) {
        free(self->reply);
        self->reply = NULL;
        self->reply_room = 0;
    }
    self->reply_size = 0;
    self->wants_reply = wants_reply;
    self->message[0] = '\0';
}

/* Only our own words are left from here on, so that a failure to leave them isn't answered by a longer one. */
static void leave_failure(tercio_call *call, int status, int code, const char *text)
{
    int32_t number = code;
    char bytes[sizeof number + sizeof(((tercio_result *)0)->message)];
    size_t n = strnlen(text, sizeof bytes - sizeof number - 1);
    memcpy(bytes, &number, sizeof number);
    memcpy(bytes + sizeof number, text, n);
    tercio_bytes part = {bytes, sizeof number + n};
    (void)tercio_leave(call, status, &part, 1);
}

static int enter(void *user, tercio_call *call, tercio_bytes prepare)
{
    const tercio_table *table = user;
    (void)prepare;

    if (tercio__table_check(table) != 0 || tercio__table_hash(table) != tercio__call_table_hash(call)) {
        leave_failure(call, TERCIO_ETABLE, TERCIO_ETABLE, tercio_error_text(TERCIO_ETABLE));
        return TERCIO_ETABLE;
    }
    worker *self = calloc(1, sizeof *self);
    if (self == NULL)
        return TERCIO_ENOMEM;
    self->table = table;
    self->is_thread = tercio_call_method(call) == TERCIO_THREADING;
    *tercio_call_user(call) = self;
    return 0;
}

static void leave(void *user, tercio_call *call)
{
    worker *self = *tercio_call_user(call);
    (void)user;
    if (self == NULL)
        return;
    *tercio_call_user(call) = NULL;
    free(self->reply);
    free(self);
}

static int open_context(void *user, tercio_call *call, const tercio_chunk *chunk, void **state)
{
    const tercio_table *table = user;
    tercio__face_context sent;
    context *opened;
    const tercio_task *task;
    int error = TERCIO_EPROTOCOL;

    if (chunk->message.size != sizeof sent)
        goto fail;
    memcpy(&sent, chunk->message.data, sizeof sent);
    task = tercio__table_task(table, sent.task);
    if (sent.magic != TERCIO__FACE_MAGIC || task == NULL || sent.layout > TERCIO__FACE_FRAMED)
        goto fail;
    error = TERCIO_ENOMEM;
    opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        goto fail;
    opened->task = task;
    opened->layout = sent.layout;
    opened->in_size = (size_t)sent.in_size;
    size_t room = task->out_size > SMALL ? task->out_size : SMALL;
    if (task->out_size && (opened->out = malloc(room)) == NULL) {
        free(opened);
        goto fail;
    }
    *state = opened;
    return 0;
fail:
    (void)tercio_leave(call, error, NULL, 0);
    return error;
}

static void close_context(void *user, tercio_call *call, void *state)
{
    context *opened = state;
    (void)user, (void)call;
    if (opened == NULL)
        return;
    free(opened->out);
    free(opened);
}

static int init(void *user, tercio_call *call, void *opened)
{
    const tercio_table *table = user;
    worker *self = *tercio_call_user(call);
    (void)opened;

    if (!HAS(table, init))
        return 0;
    forget_answer(self, false);
    int code = table->init(call, &self->state);
    if (code == 0)
        return 0;
    leave_failure(call, TERCIO_EFAILED, code, self->message[0] ? self->message : "init failed");
    return TERCIO_EFAILED;
}

static void leave_exit(void *user, tercio_call *call, void *opened)
{
    const tercio_table *table = user;
    worker *self = *tercio_call_user(call);
    (void)opened;

    if (!HAS(table, exit))
        return;
    forget_answer(self, true);
    int code = table->exit(call, self->state);
    self->state = NULL;
    if (code) {
        leave_failure(call, TERCIO_EFAILED, code, self->message[0] ? self->message : "exit failed");
        return;
    }
    tercio_bytes part = {self->reply, self->reply_size};
    if (tercio_leave(call, 0, &part, 1) != 0)
        leave_failure(call, TERCIO_EFAILED, 0, "no memory for what exit replied");
}

static int commit_failure(tercio_call *call, int code, const char *text)
{
    tercio_bytes part = {text, strnlen(text, sizeof(((tercio_result *)0)->message) - 1)};
    return tercio_commit(call, TERCIO_EFAILED, code, &part, 1);
}

/* A task in a thread may be cancelled, as the program's other threads may; the engine's own code in it may not, and what
 * the task has set for itself ends with it. */
static int run_in_thread(tercio_call *call, const tercio_task *task, tercio_bytes in, void *out)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    int code = task->run(call, in, out);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &before);
    return code;
}

/* Runs one item and publishes what came of it. Returns as tercio_commit. */
static int run_item(tercio_call *call, worker *self, const context *opened, tercio_bytes in)
{
    const tercio_task *task = opened->task;
    size_t out_size = task->out_size;
    tercio_bytes parts[2] = {{opened->out, out_size}};
    size_t n_parts = 1;

    if (out_size > SMALL)
        memset(opened->out, 0, out_size);
    else if (out_size)
        memset(opened->out, 0, SMALL); /* a size known to the compiler: no call */
    int code = self->is_thread ? run_in_thread(call, task, in, opened->out) : task->run(call, in, opened->out);
    if (code) {
        int stop = commit_failure(call, code, self->message);
        self->message[0] = '\0';
        return stop;
    }
    if (out_size == 0) {
        parts[0].data = self->reply;
        parts[0].size = self->reply_size;
    }
    if (parts[0].size > TERCIO__FACE_LARGE) {
        parts[1] = parts[0];
        parts[0].data = NULL;
        parts[0].size = 0;
        n_parts = 2;
    }
    int stop = tercio_commit(call, 0, 0, parts, n_parts);
    if (stop < 0)
        stop = commit_failure(call, 0, "no shared memory for the answer");
    if (out_size == 0)
        forget_answer(self, true);
    else
        self->message[0] = '\0';
    return stop;
}

static int run_side_by_side(tercio_call *call, worker *self, const context *opened, const tercio_chunk *chunk)
{
    const unsigned char *items = chunk->message.data;
    size_t size = chunk->message.size;
    tercio_view view = {0};
    int error = 0;

    if (chunk->n_blocks) {
        error = tercio_call_take(call, &chunk->blocks[0], &view);
        if (error)
            return error;
        items = view.data;
        size = view.size;
    }
    if (opened->in_size && size / opened->in_size < chunk->n_items)
        error = TERCIO_EPROTOCOL;
    for (uint32_t i = chunk->skip; error == 0 && i < chunk->n_items; i++) {
        tercio_bytes in = {items + i * opened->in_size, opened->in_size};
        error = run_item(call, self, opened, in);
    }
    if (chunk->n_blocks)
        tercio_give(&view);
    return error < 0 ? error : 0;
}

static int run_framed(tercio_call *call, worker *self, const context *opened, const tercio_chunk *chunk)
{
    const unsigned char *at = chunk->message.data;
    size_t left = chunk->message.size, block = 0;
    int stop = 0;

    for (uint32_t i = 0; stop == 0 && i < chunk->n_items; i++) {
        tercio__face_frame frame;
        if (left < sizeof frame)
            return TERCIO_EPROTOCOL;
        memcpy(&frame, at, sizeof frame);
        at += sizeof frame;
        left -= sizeof frame;
        if (frame.flags & TERCIO__FACE_IN_BLOCK) {
            if (block >= chunk->n_blocks)
                return TERCIO_EPROTOCOL;
            const tercio_block *large = &chunk->blocks[block++];
            if (i < chunk->skip)
                continue;
            tercio_view view;
            int error = tercio_call_take(call, large, &view);
            if (error) {
                stop = commit_failure(call, 0, "no memory to map the item");
                continue;
            }
            stop = run_item(call, self, opened, (tercio_bytes){view.data, view.size});
            tercio_give(&view);
            continue;
        }
        if (left < tercio__face_pad(frame.size))
            return TERCIO_EPROTOCOL;
        if (i >= chunk->skip)
            stop = run_item(call, self, opened, (tercio_bytes){at, frame.size});
        at += tercio__face_pad(frame.size);
        left -= tercio__face_pad(frame.size);
    }
    return stop < 0 ? stop : 0;
}

static int run_chunk(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    const context *opened = chunk->context;
    worker *self = *tercio_call_user(call);
    (void)user;

    if (opened == NULL)
        return TERCIO_EPROTOCOL;
    forget_answer(self, opened->task->out_size == 0);
    if (opened->layout == TERCIO__FACE_SIDE_BY_SIDE)
        return run_side_by_side(call, self, opened, chunk);
    return run_framed(call, self, opened, chunk);
}

const tercio_host tercio__table_host = {
    .size = sizeof(tercio_host),
    .enter = enter,
    .open_context = open_context,
    .close_context = close_context,
    .init = init,
    .run = run_chunk,
    .exit = leave_exit,
    .leave = leave,
};

void tercio_worker_entry(int argc, char **argv, const tercio_table *table)
{
    if (argc < 2 || argv == NULL || argv[argc - 1] == NULL)
        return;
    /* Comes back only where this process is no worker of ours. */
    (void)tercio_worker_main(&tercio__table_host, (void *)(uintptr_t)table, argv[argc - 1]);
}
