/* SPDX-License-Identifier: MIT
 *
 * The table of start methods.
 */
#ifndef TERCIO_START_METHODS_H
#define TERCIO_START_METHODS_H

#include "start/start.h"
#include "tercio.h"

/* Each in the file of its name. */
extern const tercio__starter tercio__fork_starter, tercio__spawn_starter, tercio__forkserver_starter,
    tercio__threading_starter;

/* NULL: there is no such method. TERCIO_DEFAULT has none. */
const tercio__starter *tercio__starter_of(tercio_method method);

#endif
