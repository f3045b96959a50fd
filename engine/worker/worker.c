/* SPDX-License-Identifier: MIT
 *
 * A worker's life: it waits at the gate, enters, takes messages, and says goodbye. The same loop serves processes
 * and threads; what they run is the host's.
 *
 * It may be killed anywhere. What it has said lies in its ring, published item by item; what it was doing is in its
 * slot (TAKEN) and in channel.phase. Nothing else of it is needed afterwards.
 */
#include "worker/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomics.h"
#include "base/fault.h"
#include "base/forks.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "tercio.h"
#include "worker/call.h"

enum { LONGEST_SPIN = 20000, TOGETHER = 8, QUICK = 5000 /* ns for a message */ };

static uint64_t lap(tercio_call *call)
{
    uint64_t now = tercio__now(), spent = now - call->now;
    call->now = now;
    return spent;
}

static void note_now(tercio_call *call)
{
    if (call->n_unnoted == 0)
        return;
    uint64_t spent = lap(call);
    ADD(call->words->ns_work, spent);
    call->is_quick = spent < (uint64_t)QUICK * call->n_unnoted;
    call->n_unnoted = 0;
}

/* A look at the clock costs as much as a small message, so of quick ones in a row some share it. What counts from
 * call->now, a limit above all, looks first. Returns: whether it has looked. */
static bool note_work(tercio_call *call)
{
    call->n_unnoted++;
    if (call->is_quick && !call->timed && call->n_unnoted < TOGETHER && tercio__taker_has_another(&call->taker))
        return false;
    note_now(call);
    return true;
}

/* Where init or exit may take so long and no longer, the supervisor has to see that one begins: nobody else tells. */
static void begin_phase(tercio_call *call, uint32_t phase)
{
    STORE(call->words->item_since, call->now, relaxed);
    tercio__call_phase(call, phase);
    atomic_thread_fence(memory_order_seq_cst); /* tercio_set_timeouts stores the word, then has the supervisor look */
    if (LOAD(call->page->phases_timed, relaxed))
        tercio__bell_ring(call->start->supervisor_bell);
}

/* ---- Contexts ------------------------------------------------------------------------------------------------------- */

static void close_context(tercio_call *call, tercio__open_context *context)
{
    if (context->id && !context->failed && call->host->close_context)
        call->host->close_context(call->user, call, context->state);
    if (call->last == context)
        call->last = NULL;
    *context = (tercio__open_context){0};
}

/* Opens a packed block: parts[0] and the descriptors of the others, in private memory. */
static int unpack(tercio_call *call, const tercio_block *block, tercio_view *view, tercio_bytes *head,
                  const tercio_block **blocks, size_t *n_blocks)
{
    int error = tercio__call_open(call, block, view);
    if (error)
        return error;
    const tercio__packed *packed = view->data;
    if (view->size < sizeof *packed || packed->magic != TERCIO__MAGIC ||
        packed->n_blocks > (view->size - sizeof *packed) / sizeof(tercio_block) ||
        packed->head_size > view->size - sizeof *packed - packed->n_blocks * sizeof(tercio_block)) {
        tercio__view_close(view);
        return TERCIO_EPROTOCOL;
    }
    *blocks = (const tercio_block *)(const void *)(packed + 1);
    *n_blocks = packed->n_blocks;
    head->data = (const char *)(packed + 1) + packed->n_blocks * sizeof(tercio_block);
    head->size = packed->head_size;
    return 0;
}

static tercio__open_context *find_context(tercio_call *call, const tercio__slot *slot)
{
    tercio__open_context *oldest = &call->contexts[0];
    for (unsigned i = 0; i < TERCIO__CONTEXTS; i++) {
        tercio__open_context *context = &call->contexts[i];
        if (context->id == slot->context) {
            context->used_at = call->n_takes;
            return context;
        }
        if (context->used_at < oldest->used_at)
            oldest = context;
    }
    close_context(call, oldest);
    oldest->id = slot->context;
    oldest->used_at = call->n_takes;

    tercio_block block = {slot->context_offset, slot->context_size};
    tercio_view view;
    tercio_chunk chunk = {.size = sizeof chunk, .index = slot->index, .n_items = slot->n_items, .skip = slot->skip};
    oldest->failed = true;
    if (slot->context && block.offset) {
        int error = unpack(call, &block, &view, &chunk.message, &chunk.blocks, &chunk.n_blocks);
        if (error) {
            (void)tercio_leave(call, error, NULL, 0);
            return oldest;
        }
        if (call->host->open_context == NULL || call->host->open_context(call->user, call, &chunk, &oldest->state) == 0)
            oldest->failed = false;
        tercio__view_close(&view);
    } else {
        oldest->failed = false;
    }
    return oldest;
}

/* ---- Messages -------------------------------------------------------------------------------------------------------- */

static void fail_items(tercio_call *call)
{
    tercio_bytes left = {call->left_bytes, call->left_size};
    int status = call->left_status ? call->left_status : TERCIO_EFAILED;
    while (call->item < call->slot->n_items)
        if (tercio_commit(call, status, 0, &left, 1))
            return;
}

/* Returns: false when the worker can't go on (init failed). */
static bool init(tercio_call *call, void *context)
{
    int failed = 0;
    begin_phase(call, TERCIO_STATE_INIT);
    if (call->host->init)
        failed = call->host->init(call->user, call, context);
    ADD(call->words->ns_init, lap(call));
    STORE(call->words->item_since, 0, relaxed);
    tercio__call_phase(call, TERCIO_STATE_WORK);
    if (failed)
        tercio__call_send_left(call, TERCIO__REC_INIT, TERCIO_EFAILED);
    tercio__call_forget_left(call);
    call->inited = !failed;
    return call->inited;
}

enum { BLOCKS_ON_STACK = 16 };

static bool run_message(tercio_call *call, tercio__slot *slot)
{
    tercio_chunk chunk = {.size = sizeof chunk, .index = slot->index, .n_items = slot->n_items, .skip = slot->skip};
    tercio_block few[BLOCKS_ON_STACK], *blocks = few;
    const tercio_block *sent;
    tercio_view head_view = {0};
    bool go_on = true;

    if ((slot->flags & TERCIO__TIMED) || !call->inited)
        note_now(call);
    call->slot = slot;
    call->sequence = call->taker.head;
    call->item = slot->skip;
    call->timed = slot->flags & TERCIO__TIMED;
    call->quiet = slot->flags & TERCIO__QUIET;
    call->in_row = false;
    call->told = false;
    call->n_takes++;
    tercio__call_phase(call, TERCIO_STATE_WORK);

    size_t n_blocks = slot->n_blocks & ~TERCIO__IN_BLOCK;
    int error = tercio__taker_message(&call->taker, slot, &sent, &chunk.message);
    if (error == 0 && n_blocks > BLOCKS_ON_STACK && (blocks = malloc(n_blocks * sizeof *blocks)) == NULL) {
        blocks = few;
        error = TERCIO_ENOMEM;
    }
    if (error == 0) {
        if (n_blocks)
            memcpy(blocks, sent, n_blocks * sizeof *blocks); /* the ring is the parent's to write */
        chunk.blocks = blocks;
        chunk.n_blocks = n_blocks;
        if (slot->n_blocks & TERCIO__IN_BLOCK) {
            error = tercio_call_take(call, &blocks[0], &head_view);
            chunk.message = (tercio_bytes){head_view.data, head_view.size};
            chunk.blocks++;
            chunk.n_blocks--;
        }
    } else {
        n_blocks = 0;
    }
    tercio__open_context *context = call->last && call->last->id == slot->context ? call->last : NULL;
    if (error) {
        (void)tercio_leave(call, error, NULL, 0);
        fail_items(call);
        goto done;
    }
    if (context == NULL) {
        note_now(call);
        call->last = context = find_context(call, slot);
        ADD(call->words->ns_start, lap(call)); /* no item's time: what is measured says how far ahead to feed */
    }
    if (context->failed) {
        fail_items(call);
        close_context(call, context); /* a later try may succeed: it is the item's error, not the worker's */
        goto done;
    }
    if (!call->inited && !init(call, context->state)) {
        go_on = false;
        goto done;
    }
    call->worked = true;
    chunk.context = context->state;
    STORE(call->words->item_sequence, call->sequence << 32 | call->item, relaxed);
    tercio__at("item: named");
    STORE(call->words->item_since, call->now, release);
    tercio__at("item: begun");
    error = call->host->run(call->user, call, &chunk);
    if (tercio_call_stray(call))
        _exit(0);
    if (call->item < slot->n_items && !call->told &&
        !tercio_stopping(call)) { /* or they would be sent again, for ever */
        (void)tercio_leave(call, error < 0 ? error : TERCIO_EPROTOCOL, NULL, 0);
        fail_items(call);
    }
    STORE(call->words->item_since, 0, relaxed);
    tercio__at("message: done");
done:
    tercio__call_forget_left(call);
    bool noted = note_work(call);
    ADD(call->words->n_chunks, 1);
    for (size_t i = 0; i < n_blocks; i++)
        if (blocks[i].offset)
            tercio__block_return(call->file, &blocks[i]);
    tercio__view_close(&head_view);
    tercio__at("message: given back");
    if (blocks != few)
        free(blocks);
    call->slot = NULL;
    tercio__taker_pass(&call->taker);
    if (noted || !call->quiet) /* so with telling: quick ones that nobody waits for share it */
        tercio__call_ring(call, true);
    else
        call->owes_ring = true;
    return go_on;
}

static void trim(tercio_call *call)
{
    uint32_t asked = LOAD(call->words->trim, relaxed);
    if (asked == call->trimmed)
        return;
    call->trimmed = asked;
    if (call->arena)
        tercio__arena_trim(call->arena);
}

static bool work_ready(tercio_call *call)
{
    return tercio__taker_has_next(&call->taker) || LOAD(call->words->stop, acquire) != TERCIO__STOP_NO ||
           LOAD(call->words->trim, relaxed) != call->trimmed;
}

static void work(tercio_call *call)
{
    uint64_t done_before = LOAD(call->words->n_done, relaxed);
    for (;;) {
        uint32_t stop = LOAD(call->words->stop, acquire);
        tercio__slot *slot;
        if (stop == TERCIO__STOP_NOW)
            return;
        switch (tercio__taker_take(&call->taker, &slot)) {
        case TERCIO__TAKE_NOTHING:
            if (stop == TERCIO__STOP_DRAINED)
                return;
            note_now(call);
            tercio__call_phase(call, TERCIO_STATE_WAIT);
            trim(call);
            tercio__call_sleep(call, TERCIO__ASLEEP, work_ready);
            ADD(call->words->ns_wait, lap(call));
            break;
        case TERCIO__TAKE_REVOKED:
            tercio__call_ring(call, true);
            break;
        default:
            if (!run_message(call, slot))
                return;
            uint32_t lifespan = LOAD(call->words->lifespan, relaxed);
            if (lifespan && LOAD(call->words->n_done, relaxed) - done_before >= lifespan)
                return;
        }
    }
}

/* ---- A life ------------------------------------------------------------------------------------------------------------ */

static bool enter(tercio_call *call)
{
    tercio_bytes prepare = {0};
    const tercio_block *blocks;
    size_t n_blocks;
    int error = 0;

    if (call->words->cpu >= 0)
        (void)tercio__pin_thread(&call->words->cpu, 1);
    if (call->page->prepare_size) {
        /* Kept for the worker's life: what is built on it needs no copy. */
        tercio_block block = {call->page->prepare_offset, call->page->prepare_size};
        error = unpack(call, &block, &call->prepare, &prepare, &blocks, &n_blocks);
    }
    if (error == 0 && call->host->enter)
        error = call->host->enter(call->user, call, prepare);
    ADD(call->words->ns_start, lap(call));
    if (error) {
        tercio__call_send_left(call, TERCIO__REC_START, error < 0 ? error : TERCIO_EFAILED);
        tercio__call_forget_left(call);
        return false;
    }
    (void)tercio__call_send(call, TERCIO__REC_ALIVE, 0, 0, NULL, 0);
    tercio__call_ring(call, true);
    return true;
}

/* What a process runs at its end may hang, so the supervisor sets a timer for it. The limit of host->exit is another. */
static void begin_leaving(tercio_call *call)
{
    if (!call->start->process)
        return;
    STORE(call->words->leaving_since, tercio__now(), release);
    tercio__at("leave: begun");
    tercio__bell_ring(call->start->supervisor_bell);
}

static void leave(tercio_call *call)
{
    static const tercio_host nobody = {.size = sizeof nobody};
    bool now = LOAD(call->words->stop, acquire) == TERCIO__STOP_NOW;
    note_now(call);
    if (call->owes_ring)
        tercio__call_ring(call, true);
    begin_phase(call, TERCIO_STATE_EXIT);
    if (call->worked && !now && call->host->exit) {
        call->host->exit(call->user, call, call->last ? call->last->state : NULL);
        if (call->left)
            tercio__call_send_left(call, TERCIO__REC_EXIT, 0);
        tercio__call_forget_left(call);
    }
    for (unsigned i = 0; i < TERCIO__CONTEXTS; i++)
        close_context(call, &call->contexts[i]);
    for (unsigned i = 0; i < TERCIO__SHARES; i++)
        if (call->share_open[i])
            tercio__view_close(&call->shares[i]);
    if (call->host->leave) {
        begin_leaving(call);
        call->host->leave(call->user, call);
    }
    ADD(call->words->ns_exit, lap(call));
    call->host = &nobody; /* there may be a wait for room yet, and nothing of the host's is left */
    tercio__at("leave: about to say goodbye");
    (void)tercio__call_send(call, TERCIO__REC_GOODBYE, 0, 0, NULL, 0);
    tercio__call_phase(call, TERCIO_STATE_DEAD);
    tercio__call_ring(call, true);
    tercio__at("leave: rung");
    atomic_thread_fence(memory_order_seq_cst);
    if (!call->start->process) { /* nobody else tells that a thread is done */
        if (LOAD(call->page->caller_wants, relaxed) & TERCIO__WANTS)
            tercio__bell_ring(call->start->caller_bell);
        tercio__bell_ring(call->start->supervisor_bell);
    }
}

static void live(tercio_call *call)
{
    work(call);
    leave(call);
}

/* What it runs has ended the thread, by pthread_exit say, and this is what the thread runs last. A process goes with its
 * main thread: others may keep it, and nobody would see that it does nothing any more. */
static void is_lost(void *data)
{
    tercio_call *call = data;
    if (tercio_call_stray(call))
        return;
    if (call->start->process)
        _exit(0);
    bool is_told = call->host->size > offsetof(tercio_host, lost) && call->host->lost;
    if (is_told)
        call->host->lost(call->user, call);
    for (unsigned i = 0; i < TERCIO__CONTEXTS && !is_told; i++)
        close_context(call, &call->contexts[i]);
    if (!is_told && call->host->leave)
        call->host->leave(call->user, call);
    for (unsigned i = 0; i < TERCIO__SHARES; i++)
        if (call->share_open[i])
            tercio__view_close(&call->shares[i]);
    tercio__call_forget_left(call);
    tercio__view_close(&call->prepare);
    tercio__arena_delete(call->arena);
    free(call);
}

void tercio__worker_live(const tercio__worker_start *start)
{
    tercio_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return; /* a death before it was alive: the parent says so */
    call->start = start;
    call->host = start->host;
    call->user = start->host_user;
    call->page = start->page;
    call->words = start->channel;
    call->file = start->file;
    call->fork_generation = tercio__fork_generation();
    call->spin_ns = LONGEST_SPIN;
    tercio__channel_at(&call->taker.map, start->channel, start->page->ring_bytes);
    tercio__call_phase(call, TERCIO_STATE_START);

    uint32_t gate;
    while ((gate = LOAD(call->words->gate, acquire)) == TERCIO__GATE_CLOSED)
        tercio__word_wait(&call->words->gate, TERCIO__GATE_CLOSED, 0);
    call->now = call->words->begun ? call->words->begun : tercio__now();
    tercio__at("gate: passed");
    pthread_cleanup_push(is_lost, call);
    if (gate == TERCIO__GATE_OPEN) {
        if (enter(call)) {
            if (start->process && call->host->size > offsetof(tercio_host, live) && call->host->live)
                call->host->live(call->user, call, live);
            else
                live(call);
        } else {
            (void)tercio__call_send(call, TERCIO__REC_GOODBYE, 0, 0, NULL, 0);
            tercio__call_ring(call, true);
            tercio__bell_ring(start->supervisor_bell);
        }
    }
    pthread_cleanup_pop(0);
    tercio__view_close(&call->prepare);
    tercio__arena_delete(call->arena);
    free(call);
}

/* ---- Processes ----------------------------------------------------------------------------------------------------------- */

int tercio__interrupt_signal(void)
{
    return SIGRTMIN + 8;
}

_Noreturn void tercio__worker_process(int file_fd, int caller_bell, int supervisor_bell, uint32_t index,
                                      const tercio_host *host, void *host_user, int parent_pid, bool lasting, int line,
                                      const int *descriptors, size_t n_descriptors)
{
    tercio__worker_start start = {.host = host,
                                  .descriptors = descriptors,
                                  .n_descriptors = n_descriptors,
                                  .host_user = host_user,
                                  .caller_bell = caller_bell,
                                  .supervisor_bell = supervisor_bell,
                                  .parent_pid = parent_pid,
                                  .process = true};
    void *memory;
    if (tercio__die_with_parent(parent_pid, lasting, line) || tercio__parent_gone(parent_pid))
        _exit(0);
    tercio__at("worker: bound to its parent");
    start.file = tercio__file_new(file_fd);
    if (start.file == NULL || tercio__shm_map(file_fd, 0, TERCIO__PAGE_BYTES, TERCIO__MAP_SHARED, &memory))
        _exit(127);
    start.page = memory;
    if (start.page->magic != TERCIO__MAGIC || index >= start.page->n_channels ||
        tercio__shm_map(file_fd,
                        tercio__page_round(TERCIO__PAGE_BYTES, tercio__page_size()) + index * start.page->channel_bytes,
                        (size_t)start.page->channel_bytes, TERCIO__MAP_SHARED, &memory))
        _exit(127);
    tercio__signals_enter(start.page->blocked, tercio__interrupt_signal());
    start.channel = memory;
    /* A group of its own keeps a terminal from it: that is for systems where families can't be known. */
    if (start.channel->family && !tercio__family_join(start.channel->family))
        (void)setpgid(0, 0);
    start.method = (tercio_method)start.page->method;
    tercio__worker_live(&start);
    tercio__write_output();
    _exit(0);
}
