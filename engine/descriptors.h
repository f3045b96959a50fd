/* SPDX-License-Identifier: MIT
 *
 * What pools of this process have open for themselves, and forked workers close.
 */
#ifndef TERCIO_DESCRIPTORS_H
#define TERCIO_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From now on workers that are forked close it. Returns: fd, also where it is an error. */
int tercio__owned(int fd);
/* Closes what tercio__owned had, in the process whose it is; nothing in a forked child, nor for an error. */
void tercio__owned_close(int fd, uint32_t fork_generation);
/* Around a worker's fork, in the parent: this thread begins one, has done it. */
void tercio__owned_fork(bool begins);
/* In the worker: closes all but those of `keep`. */
void tercio__owned_drop(const int *keep, size_t n);
/* In a child that was forked, by whomever, before anything else. */
void tercio__owned_forked(void);

#endif
