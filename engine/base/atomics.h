/* SPDX-License-Identifier: MIT
 *
 * Atomic words with their order named by its last part: LOAD(word, acquire).
 */
#ifndef TERCIO_BASE_ATOMICS_H
#define TERCIO_BASE_ATOMICS_H

#include <stdatomic.h>

#define LOAD(word, order) atomic_load_explicit(&(word), memory_order_##order)
#define STORE(word, value, order) atomic_store_explicit(&(word), (value), memory_order_##order)
#define ADD(word, value) atomic_store_explicit(&(word), LOAD(word, relaxed) + (value), memory_order_relaxed)

#endif
