/* SPDX-License-Identifier: MIT
 *
 * What the rooms of this folder ask of each other.
 */
#ifndef TERCIO_LINUX_H
#define TERCIO_LINUX_H

#include <errno.h>
#include <stdbool.h>

/* True when a system call failed since the kernel is too old for it, or a sandbox forbids it (those answer with one
 * number or the other): there is another way then. */
static inline bool tercio__refused(void)
{
    return errno == ENOSYS || errno == EPERM || errno == EACCES || errno == EOPNOTSUPP;
}

/* watch.c: what process_handle gives where there are no pidfds. Returns: descriptor or TERCIO_E.... */
int tercio__watch_child(int pid);
/* The child was collected: waits for the last instructions of its thread, if it had one. */
void tercio__watch_end(int pid);
/* Threads that do so in this process. */
int tercio__watchers(void);

#endif
