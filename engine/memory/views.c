/* SPDX-License-Identifier: MIT
 *
 * The borrower's side of the arenas: the file that they lie in, and views of their blocks.
 *
 * Three lifetimes, none of which waits for another:
 *
 *     the object       counted by `refs`: the pool, its arenas and every view hold one
 *     the descriptor   counted by `uses`: one for the pool (given up by retire), one for each arena, one for as long
 *                      as a call is using it. The call that brings it to 0 closes it, so no write reaches another file
 *     the memory       by mappings: a view needs neither of the two to be read
 *
 * After a fork the child may use the object (a forked worker does), but never its lock, which may have been held by
 * a thread that the child doesn't have. So the list of views is kept in the process that made the file alone; it is
 * the only one that discards memory of the dead. A view that is closed there after a fork becomes a ghost: its
 * pages are still read in the child, so they are nobody's to give back.
 */
#include "memory/views.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/forks.h"
#include "channel/layout.h"
#include "memory/block.h"
#include "plat/plat.h"
#include "tercio.h"

struct view {
    tercio__file *file;
    tercio__block_head *head;
    size_t mapped; /* bytes; 0: heap */
    tercio_block block;
    uint32_t generation, forks; /* of this process, when the view was opened */
    bool pinned;                /* its owner doesn't wait for it */
    bool listed;
    struct view *next, **link;
};

struct tercio__file {
    _Atomic uint32_t refs, uses;
    _Atomic bool retired;
    int fd;
    uint32_t generation;      /* of the process that made it */
    pthread_mutex_t lock;     /* what follows; only in that process */
    struct view *views;       /* that are open */
    struct view *ghosts;      /* that were closed, and that a forked child may still read */
    tercio__range *discarded; /* ranges whose owner is dead */
    size_t n_discarded;
    uint64_t returned; /* bytes, since somebody listens */
    int listener;      /* a bell; -1: nobody */
};

/* ---- The file -------------------------------------------------------------------------------------------------- */

tercio__file *tercio__file_new(int fd)
{
    tercio__file *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    tercio__fork_watch();
    if (pthread_mutex_init(&file->lock, NULL)) {
        free(file);
        return NULL;
    }
    file->fd = fd;
    file->listener = -1;
    file->generation = tercio__fork_generation();
    atomic_init(&file->refs, 1);
    atomic_init(&file->uses, 1);
    return file;
}

tercio__file *tercio__file_ref(tercio__file *file)
{
    atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed); /* the caller has one, so none can be the last */
    return file;
}

int tercio__file_use(tercio__file *file)
{
    uint32_t uses = atomic_load(&file->uses);
    while (uses)
        if (atomic_compare_exchange_weak(&file->uses, &uses, uses + 1))
            return 0;
    return TERCIO_ECLOSED;
}

void tercio__file_unuse(tercio__file *file)
{
    if (atomic_fetch_sub(&file->uses, 1) == 1 && file->fd >= 0) {
        int saved_errno = errno;
        tercio__owned_close(file->fd, file->generation);
        errno = saved_errno;
    }
}

bool tercio__file_retired(tercio__file *file)
{
    return atomic_load(&file->retired);
}

void tercio__file_retire(tercio__file *file)
{
    if (!atomic_exchange(&file->retired, true))
        tercio__file_unuse(file);
}

static void free_lists(tercio__file *file)
{
    while (file->ghosts) {
        struct view *view = file->ghosts;
        file->ghosts = view->next;
        free(view);
    }
    free(file->discarded);
}

void tercio__file_unref(tercio__file *file)
{
    if (!file || atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1)
        return;
    tercio__file_retire(file);
    pthread_mutex_destroy(&file->lock);
    free_lists(file); /* an open view would hold a reference */
    free(file);
}

bool tercio__file_hold(tercio__file *file)
{
    return pthread_mutex_trylock(&file->lock) == 0;
}

void tercio__file_let_go(tercio__file *file)
{
    pthread_mutex_unlock(&file->lock);
}

void tercio__file_forget(tercio__file *file, bool is_whole)
{
    tercio__owned_close(file->fd, file->generation);
    if (is_whole)
        free_lists(file);
    free(file);
}

int tercio__file_fd(const tercio__file *file)
{
    return file->fd;
}

void tercio__file_listen(tercio__file *file, int bell)
{
    if (file->fd < 0 || file->generation != tercio__fork_generation())
        return;
    pthread_mutex_lock(&file->lock);
    file->returned = 0;
    file->listener = bell;
    pthread_mutex_unlock(&file->lock);
}

uint64_t tercio__file_returned(tercio__file *file)
{
    pthread_mutex_lock(&file->lock);
    uint64_t bytes = file->returned;
    pthread_mutex_unlock(&file->lock);
    return bytes;
}

/* ---- Memory of the dead ---------------------------------------------------------------------------------------- */

static bool is_discarded(const tercio__file *file, uint64_t offset)
{
    for (size_t i = 0; i < file->n_discarded; i++)
        if (offset - file->discarded[i].offset < file->discarded[i].size)
            return true;
    return false;
}

static size_t whole_pages(uint64_t size)
{
    size_t page = tercio__page_size();
    return (size_t)(size + sizeof(tercio__block_head) + page - 1) / page * page;
}

static int by_offset(const void *a, const void *b)
{
    const tercio__range *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

int tercio__file_discard(tercio__file *file, const tercio__range *ranges, size_t n, const tercio_block *kept,
                         size_t n_kept)
{
    if (file->fd < 0 || file->generation != tercio__fork_generation())
        return TERCIO_EFORKED;
    int error = tercio__file_use(file);
    if (error)
        return error;
    pthread_mutex_lock(&file->lock);

    const struct view *const lists[] = {file->views, file->ghosts};
    size_t n_islands = n_kept;
    for (size_t i = 0; i < 2; i++)
        for (const struct view *v = lists[i]; v; v = v->next)
            n_islands++;
    tercio__range *islands = malloc((n_islands + 1) * sizeof *islands);
    tercio__range *known = realloc(file->discarded, (file->n_discarded + n + 1) * sizeof *known);
    if (known)
        file->discarded = known;
    if (!islands || !known) {
        error = TERCIO_ENOMEM;
        goto out;
    }
    n_islands = 0;
    for (size_t i = 0; i < n_kept; i++)
        islands[n_islands++] = (tercio__range){kept[i].offset, whole_pages(kept[i].size)};
    for (size_t i = 0; i < 2; i++)
        for (const struct view *v = lists[i]; v; v = v->next)
            islands[n_islands++] = (tercio__range){v->block.offset, v->mapped};
    qsort(islands, n_islands, sizeof *islands, by_offset);

    for (size_t r = 0; r < n; r++) {
        uint64_t at = ranges[r].offset, end = at + ranges[r].size;
        if (ranges[r].size == 0 || end < at || end > (uint64_t)INT64_MAX)
            continue; /* a range that was being written down when its writer was killed never got memory */
        bool whole = true;
        for (size_t i = 0; i < n_islands && at < end; i++) {
            uint64_t from = islands[i].offset, to = from + islands[i].size;
            if (to <= at || from >= end)
                continue;
            whole = false;
            if (from > at)
                tercio__shm_punch(file->fd, at, from - at);
            at = to;
        }
        if (at < end)
            tercio__shm_punch(file->fd, at, end - at);
        if (!whole) /* something of it is still to come back */
            known[file->n_discarded++] = ranges[r];
    }
out:
    pthread_mutex_unlock(&file->lock);
    free(islands);
    tercio__file_unuse(file);
    return error;
}

/* ---- Giving back ----------------------------------------------------------------------------------------------- */

void tercio__heap_block_drop(tercio__block_head *head)
{
    if (atomic_fetch_sub_explicit(tercio__heap_block_refs(head), 1, memory_order_acq_rel) == 1)
        free(head);
}

void tercio__heap_block_end(tercio__block_head *head)
{
    uint32_t lent = TERCIO__BLOCK_LENT; /* release: the owner must not reuse what is still being read */
    if (atomic_compare_exchange_strong_explicit(&head->state, &lent, TERCIO__BLOCK_RETURNED, memory_order_release,
                                                memory_order_relaxed))
        tercio__heap_block_drop(head);
}

static void tell_listener(tercio__file *file, uint64_t bytes)
{
    if (file->generation != tercio__fork_generation())
        return;
    pthread_mutex_lock(&file->lock);
    file->returned += bytes;
    if (file->listener >= 0 && file->returned > TERCIO__KEEP_COMMITTED) {
        tercio__bell_ring(file->listener);
        file->listener = -1;
    }
    pthread_mutex_unlock(&file->lock);
}

/* Tells the owner, or, where it is dead, gives back the memory in its place. */
static void give_back(tercio__file *file, const tercio_block *block)
{
    if (tercio__file_use(file))
        return;
    bool discarded = false;
    if (file->generation == tercio__fork_generation()) {
        pthread_mutex_lock(&file->lock);
        discarded = is_discarded(file, block->offset);
        if (discarded)
            tercio__shm_punch(file->fd, block->offset, whole_pages(block->size));
        pthread_mutex_unlock(&file->lock);
    }
    tercio__at("block: about to give back");
    if (!discarded) {
        uint32_t returned = TERCIO__BLOCK_RETURNED;
        /* A failure (the only one known is a limit on file sizes that was lowered meanwhile) leaves the block lent
         * until the pool ends, which costs its memory and nothing else. */
        (void)tercio__shm_write(file->fd, block->offset + offsetof(tercio__block_head, state), &returned,
                                sizeof returned);
        tell_listener(file, block->size);
    }
    tercio__file_unuse(file);
}

void tercio__block_return(tercio__file *file, const tercio_block *block)
{
    int saved_errno = errno;
    if (file->fd < 0) {
        tercio__heap_block_end((tercio__block_head *)(uintptr_t)block->offset);
        return;
    }
    /* The descriptor of the block came through shared memory: look before writing there. */
    tercio__block_head head;
    if (tercio__file_use(file))
        return;
    ssize_t n = pread(file->fd, &head, sizeof head, (off_t)block->offset);
    tercio__file_unuse(file);
    if (n == (ssize_t)sizeof head && head.magic == TERCIO__BLOCK_MAGIC && block->size <= head.size &&
        atomic_load_explicit(&head.state, memory_order_relaxed) == TERCIO__BLOCK_LENT)
        give_back(file, block);
    errno = saved_errno;
}

/* ---- Views ----------------------------------------------------------------------------------------------------- */

/* Called before the block is mapped, so that discard, in another thread, misses none. */
static void enlist(struct view *view)
{
    tercio__file *file = view->file;
    if (file->generation != view->generation)
        return;
    pthread_mutex_lock(&file->lock);
    view->next = file->views;
    view->link = &file->views;
    if (view->next)
        view->next->link = &view->next;
    file->views = view;
    view->listed = true;
    pthread_mutex_unlock(&file->lock);
}

static void delist(struct view *view, bool becomes_a_ghost)
{
    if (!view->listed)
        return;
    pthread_mutex_lock(&view->file->lock);
    *view->link = view->next;
    if (view->next)
        view->next->link = view->link;
    view->listed = false;
    if (becomes_a_ghost) {
        view->next = view->file->ghosts;
        view->file->ghosts = view;
    }
    pthread_mutex_unlock(&view->file->lock);
}

static int check_head(struct view *view, const tercio__block_head *head)
{
    uint32_t state = atomic_load_explicit(&head->state, memory_order_acquire);
    view->pinned = state == TERCIO__BLOCK_PINNED;
    bool sound = head->magic == TERCIO__BLOCK_MAGIC && view->block.size <= head->size &&
                 (state == TERCIO__BLOCK_LENT || state == TERCIO__BLOCK_PINNED);
    return sound ? 0 : TERCIO_EPROTOCOL;
}

static int map_block(struct view *view)
{
    const tercio_block *block = &view->block;
    tercio__file *file = view->file;
    size_t page = tercio__page_size();
    struct stat about;
    if (fstat(file->fd, &about))
        return TERCIO_ESYSTEM;
    uint64_t end = ((uint64_t)about.st_size + page - 1) / page * page;
    if (block->offset % page || block->offset >= end || block->size > end - block->offset ||
        whole_pages(block->size) > end - block->offset)
        return TERCIO_EPROTOCOL;
    void *memory;
    view->mapped = whole_pages(block->size);
    enlist(view);
    /* Read, and not through a mapping: where there is no block there may be no memory either, and a load would then
     * get some, or a SIGBUS. */
    tercio__block_head head;
    ssize_t n = pread(file->fd, &head, sizeof head, (off_t)block->offset);
    int error = n == (ssize_t)sizeof head ? check_head(view, &head) : n < 0 ? TERCIO_ESYSTEM : TERCIO_EPROTOCOL;
    if (!error)
        error = tercio__shm_map(file->fd, block->offset, view->mapped, TERCIO__MAP_PRIVATE, &memory);
    if (error)
        delist(view, false);
    else
        view->head = memory;
    return error;
}

int tercio__view_open(tercio__file *file, const tercio_block *block, tercio_view *out)
{
    int error;
    memset(out, 0, sizeof *out);
    struct view *view = calloc(1, sizeof *view);
    if (!view)
        return TERCIO_ENOMEM;
    view->file = file;
    view->block = *block;
    view->generation = tercio__fork_generation();
    view->forks = tercio__fork_count();
    error = tercio__file_use(file);
    if (error)
        goto no_use;
    if (file->fd >= 0) {
        error = map_block(view);
    } else {
        view->head = (tercio__block_head *)(uintptr_t)block->offset;
        error = view->head ? check_head(view, view->head) : TERCIO_EPROTOCOL;
        if (!error) /* relaxed: it is lent to us, so nobody drops it meanwhile */
            atomic_fetch_add_explicit(tercio__heap_block_refs(view->head), 1, memory_order_relaxed);
    }
    if (error)
        goto no_block;
    tercio__file_unuse(file);
    tercio__file_ref(file);
    out->data = view->head + 1;
    out->size = (size_t)block->size;
    out->internal[0] = view;
    return 0;

no_block:
    tercio__file_unuse(file);
no_use:
    free(view);
    return error;
}

void tercio__view_close(tercio_view *out)
{
    struct view *view = out->internal[0];
    if (!view)
        return;
    memset(out, 0, sizeof *out);
    int saved_errno = errno;
    tercio__file *file = view->file;
    bool ghost = false;

    if (view->mapped)
        tercio__shm_unmap(view->head, view->mapped);
    if (!view->mapped) { /* a child's copy of it is the child's own */
        tercio__heap_block_end(view->head);
        tercio__heap_block_drop(view->head);
    }
    if (view->generation == tercio__fork_generation()) {
        if (view->mapped && view->forks != tercio__fork_count()) {
            /* Asked after the unmapping: a fork that isn't counted yet can't copy these pages any more. */
            ghost = view->listed;
            delist(view, true);
        } else if (view->mapped) {
            delist(view, false);
            if (!view->pinned)
                give_back(file, &view->block);
        }
        if (ghost)
            view = NULL;
        tercio__file_unref(file);
    } /* else it is a child's copy, and so are the file and the references to it */
    free(view);
    errno = saved_errno;
}

void tercio_give(tercio_view *view)
{
    if (view)
        tercio__view_close(view);
}
