/* SPDX-License-Identifier: MIT
 *
 * What a point does in a build that has them. It may run in a child between fork and its loop, with all locks of
 * another thread's taken: system calls, and nothing else.
 */
#include "base/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plat/plat.h"

static _Atomic(tercio__faults *) faults;
static _Atomic int counted_by; /* a child that was forked counts anew */
static _Atomic uint32_t count;

static tercio__faults *find(void)
{
    tercio__faults *known = atomic_load(&faults);
    const char *path = getenv("TERCIO_FAULTS");
    if (known || path == NULL)
        return known;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *memory = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *known, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (memory == MAP_FAILED)
        return NULL;
    atomic_store(&faults, memory);
    return memory;
}

static void note_most(_Atomic uint32_t *most, uint32_t n)
{
    uint32_t seen = atomic_load(most);
    while (n > seen && !atomic_compare_exchange_weak(most, &seen, n))
        continue;
}

void tercio__at(const char *label)
{
    tercio__faults *f = find();
    int self = (int)getpid();
    if (f == NULL || atomic_load(&f->parent) == 0)
        return;
    if (atomic_load(&f->state) == TERCIO__FAULT_ARMED && f->label[0] && strncmp(f->label, label, sizeof f->label) != 0)
        return;
    if (atomic_exchange(&counted_by, self) != self)
        atomic_store(&count, 0);
    uint32_t n = atomic_fetch_add(&count, 1) + 1, armed = TERCIO__FAULT_ARMED;
    uint32_t side = self == atomic_load(&f->parent) ? TERCIO__PARENT_SIDE : TERCIO__WORKER_SIDE;
    note_most(&f->passed[side], n);
    uint32_t at = atomic_load(&f->at);
    if (side != atomic_load(&f->side) || (at && n != at) || atomic_load(&f->how) == TERCIO__STRIKE_NOBODY ||
        !atomic_compare_exchange_strong(&f->state, &armed, TERCIO__FAULT_STRUCK))
        return;
    strncpy(f->label, label, sizeof f->label - 1);
    atomic_store(&f->victim, self);
    tercio__word_wake(&f->state);
    if (atomic_load(&f->how) == TERCIO__STRIKE_KILL)
        (void)kill(self, SIGKILL);
    while (atomic_load(&f->released) == 0)
        tercio__word_wait(&f->released, 0, 0);
}
