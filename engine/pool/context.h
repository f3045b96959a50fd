/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_CONTEXT_H
#define TERCIO_POOL_CONTEXT_H

#include <stddef.h>

#include "state/message.h"
#include "tercio.h"

int tercio__context_new(tercio_pool *, const tercio_bytes *parts, size_t n_parts, tercio__context **);
void tercio__context_unref(tercio_pool *, tercio__context *);
/* Keeps the context until the pool and its threads are gone: a thread that was left behind may open it yet. */
void tercio__context_strand(tercio_pool *, tercio__context *);
/* One block, without parts of its own, of pieces one behind the other. */
int tercio__pack_pieces(tercio_pool *, const tercio_bytes *pieces, size_t n, tercio_block *block);
/* tercio__context_unref there: its blocks are left alone. */
void tercio__context_forget(tercio__context *);

#endif
