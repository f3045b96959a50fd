/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_FACE_FRAMING_H
#define TERCIO_FACE_FRAMING_H

#include <stddef.h>
#include <stdint.h>

enum { TERCIO__FACE_SIDE_BY_SIDE, TERCIO__FACE_FRAMED };

#define TERCIO__FACE_MAGIC UINT32_C(0x66616365)

#define TERCIO__FACE_IN_BLOCK UINT32_C(1)

/* Items and answers above it travel as blocks, which are mapped instead of copied once more. */
#define TERCIO__FACE_LARGE ((size_t)16 << 10)

typedef struct {
    uint32_t magic, task;
    uint64_t layout;
    uint64_t in_size; /* side by side: bytes an item */
} tercio__face_context;

typedef struct {
    uint32_t size; /* bytes in the message */
    uint32_t flags;
} tercio__face_frame;

static inline size_t tercio__face_pad(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

#endif
