/* SPDX-License-Identifier: MIT
 *
 * How many messages are queued ahead of each worker: measured from the time that an item takes.
 */
#ifndef TERCIO_POOL_DEPTH_H
#define TERCIO_POOL_DEPTH_H

#include "state/message.h"

void tercio__measure(tercio__worker *worker, const tercio__chunk *chunk);

#endif
