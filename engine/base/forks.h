/* SPDX-License-Identifier: MIT
 *
 * What pools of this process have open for themselves, and forked workers close.
 */
#ifndef TERCIO_BASE_FORKS_H
#define TERCIO_BASE_FORKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Registers the fork handler of this process, once; counts forks. */
void tercio__fork_watch(void);
uint32_t tercio__fork_generation(void); /* changes in a forked child */
uint32_t tercio__fork_count(void);      /* changes in a parent that forked, too */
/* From now on workers that are forked close it. It is marked, so its open file must be the pool's alone. Returns: fd, also
 * where it is an error. */
int tercio__owned(int fd);
/* ... for a copy of a descriptor of the application's, which has no mark. */
int tercio__owned_copy(int fd);
/* Closes what tercio__owned had. In a child that was forked since, it is closed where it is still open there: where the
 * number has come to stand for something else, nothing is. */
void tercio__owned_close(int fd, uint32_t fork_generation);
/* The same for tercio__owned_copy; `identity` is what tercio__descriptor_identity said of it. */
void tercio__owned_copy_close(int fd, uint32_t fork_generation, const uint64_t identity[2]);
/* Around a worker's fork, in the parent: this thread begins one, has done it. */
void tercio__owned_fork(bool begins);
bool tercio__owned_forks_a_worker(void); /* this thread has begun one */
/* In the worker: closes all but those of `keep`. */
void tercio__owned_drop(const int *keep, size_t n);

#endif
