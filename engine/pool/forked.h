/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_POOL_FORKED_H
#define TERCIO_POOL_FORKED_H

#include "tercio.h"

/* The list of the pools that can be closed. */
void tercio__pool_enlist(tercio_pool *);
void tercio__pool_delist(tercio_pool *);
/* tercio_close in a child that was forked since the pool was opened. */
void tercio__pool_forget(tercio_pool *);

#endif
