/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_WORKER_WORKER_H
#define TERCIO_WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/layout.h"
#include "memory/views.h"
#include "tercio.h"

/* What a worker knows when it begins. */
typedef struct {
    tercio__file *file;
    tercio__page *page;
    tercio__channel *channel;
    const tercio_host *host;
    void *host_user;
    tercio_method method;
    int caller_bell, supervisor_bell;
    int parent_pid;
    const int *descriptors; /* tercio_call_descriptor */
    size_t n_descriptors;
    bool process; /* it owns its process */
} tercio__worker_start;

/* A worker's whole life, from the gate to its goodbye. The process, or thread, ends after it. */
void tercio__worker_live(const tercio__worker_start *);
/* Maps page and channel, and lives. For processes: never returns. `descriptors` stay the caller's. */
_Noreturn void tercio__worker_process(int file_fd, int caller_bell, int supervisor_bell, uint32_t index,
                                      const tercio_host *, void *host_user, int parent_pid, bool lasting, int line,
                                      const int *descriptors, size_t n_descriptors);
/* The signal that interrupts what a worker runs. */
int tercio__interrupt_signal(void);

#endif
