/* SPDX-License-Identifier: MIT
 *
 * Fault points, at which a test may kill or stop a process: they stand before and behind each store that another
 * process relies on, or that the handling of a death relies on. `meson -Dfault_points=true` builds an engine that
 * counts them and stops at the n-th; in any other build they are nothing. tests/c/test_fault_points.c walks through
 * them.
 */
#ifndef TERCIO_FAULT_H
#define TERCIO_FAULT_H

#ifdef TERCIO_FAULT_POINTS

#include <stdatomic.h>
#include <stdint.h>

enum { TERCIO__PARENT_SIDE, TERCIO__WORKER_SIDE };
enum { TERCIO__STRIKE_NOBODY, TERCIO__STRIKE_KILL, TERCIO__STRIKE_HOLD };
enum { TERCIO__FAULT_ARMED, TERCIO__FAULT_STRUCK, TERCIO__FAULT_OVER };

/* In a file that the test and all processes of its pool have mapped; TERCIO_FAULTS in the environment names it. */
typedef struct {
    _Atomic int parent;    /* the process that is the parent's side; all others are workers. 0: not yet */
    _Atomic uint32_t side; /* whom to strike, */
    _Atomic uint32_t at;   /* at which point of those that it passes (the first is 1; 0: at the next), */
    _Atomic uint32_t how;  /* and how */
    _Atomic uint32_t state;
    _Atomic int victim;
    _Atomic uint32_t released;  /* what a victim that is held waits for */
    _Atomic uint32_t passed[2]; /* most points that a process of each side has passed */
    char label[64]; /* where the victim was struck; before that: the only point that counts, if it names one */
} tercio__faults;

/* One process is struck, once. */
void tercio__at(const char *label);

#else

static inline void tercio__at(const char *label)
{
    (void)label;
}

#endif
#endif
