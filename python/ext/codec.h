/* SPDX-License-Identifier: MIT
 *
 * Values as bytes. A value is a head and any number of buffers beside it: the head begins with a tag, the buffers
 * (large contiguous memory, from pickle protocol 5 or from a large bytes or str) become parts of the message of
 * their own, which are copied once and mapped where they are read.
 *
 *     tag   then                                     what
 *     N T F                                          None, True, False
 *     i     4 bytes                                  int
 *     l     8 bytes                                  int
 *     f     8 bytes                                  float, bit for bit
 *     s     u32 length, UTF-8                        str
 *     y     u32 length, bytes                        bytes
 *     (     u32 count, that many values              tuple
 *     [     u32 count, that many values              list, outermost only
 *     {     u32 count, that many keys and values     dict, outermost only
 *     S Y                                            str (UTF-8), bytes: one buffer
 *     p     pickle, up to the end of the head
 *     P     u32 count of buffers, pickle
 *     Q     u32 count of buffers; the pickle itself is one more buffer, behind those
 *
 * A list or dict inside of another value could be there twice, which pickle keeps and this would not.
 * Only exact types get a tag of their own; all else is pickled. Numbers are in the machine's order: both ends are
 * the same machine. The decoder believes nothing: what comes out of bounds is a ValueError. (A pickle is believed by
 * its nature.)
 *
 * Items lie behind one another in a message, framed:  u32 size of head, u32 number of its first buffer, head.
 */
#ifndef TERCIO_EXT_CODEC_H
#define TERCIO_EXT_CODEC_H

#include "core.h"

#define CODEC_LARGE ((size_t)32 * 1024) /* from here on a buffer of its own */
#define CODEC_MOST_BUFFERS 512u         /* of one value; more stay in the pickle */
#define CODEC_FRAME ((size_t)8)
#define CODEC_DEPTH 8                       /* tuples in tuples; deeper ones are pickled */
#define CODEC_EXPLICIT UINT32_C(0x80000000) /* in a frame: the value is (args, kwargs), not an element */

struct encoder {
    core_state *st;
    int serializer;
    bool in_band;        /* no buffers beside the head, however large */
    unsigned char *data; /* heads */
    size_t size, capacity;
    tercio_bytes *parts; /* parts[0] is set by encoder_parts */
    PyObject **owners;   /* of parts[i] */
    size_t n_parts, part_capacity;
    PyObject *collector;               /* the buffer_callback */
    void (*before_pickle)(void *user); /* may be NULL: what it runs may take long */
    void *user;
};

int encoder_init(encoder *, core_state *, int serializer); /* 0, or -1 with an exception; fini is safe after either */
void encoder_fini(encoder *);
void encoder_reset(encoder *);
/* Appends one value. Returns 0; -1 with an exception, and the encoder as it was. */
int encode_value(encoder *, PyObject *);
/* Appends a framed value; flags: 0 or CODEC_EXPLICIT. */
int encode_item(encoder *, PyObject *, uint32_t flags);
/* Appends a reference, which the message owns then; `explicit_arguments` as CODEC_EXPLICIT. */
int encode_reference(encoder *, PyObject *, bool explicit_arguments);
const tercio_bytes *encoder_parts(encoder *);

/* Where a decoder finds buffers. take: a new reference to an object with a writable buffer; NULL with an exception. */
typedef struct buffers {
    PyObject *(*take)(const struct buffers *, size_t i);
    size_t n;
    const tercio_block *blocks;
    void *from; /* tercio_run, tercio_call, or a sequence */
    core_state *st;
} buffers;

/* A result's bytes. The engine puts a head that is too large for a ring into the first of the blocks. */
typedef struct {
    const void *head;
    size_t size;
    buffers buffers;
    tercio_view view;
    bool viewed;
} answer_bytes;
/* `run` may be NULL for results that are the pool's; then a large head can't be had. 0, or -1 with an exception. */
int answer_open(answer_bytes *, core_state *, tercio_run *, const tercio_result *);
void answer_close(answer_bytes *);

buffers buffers_of_chunk(core_state *, tercio_call *, const tercio_chunk *);

/* The value in a head; its buffers are those from `first` on. Returns a new reference or NULL with an exception. */
PyObject *decode_value(core_state *, int serializer, const void *head, size_t size, const buffers *, size_t first);

/* To decode it runs others' code. */
static inline bool codec_is_pickle(const void *head, size_t size)
{
    char tag = size ? *(const char *)head : 0;
    return tag == 'p' || tag == 'P' || tag == 'Q';
}

/* Steps through framed items. Returns false, with an exception, when the bytes make no sense. */
typedef struct {
    const unsigned char *at, *end;
} item_cursor;
typedef struct {
    const unsigned char *head;
    size_t size;
    uint32_t first;
    bool explicit_arguments;
} item_frame;
bool cursor_next(item_cursor *, item_frame *);

/* A reference out of a message of references. */
static inline PyObject *reference_at(const void *message, size_t i, bool *explicit_arguments)
{
    uintptr_t word;
    memcpy(&word, (const char *)message + i * sizeof word, sizeof word);
    *explicit_arguments = word & 1;
    return (PyObject *)(word & ~(uintptr_t)1);
}

PyObject *codec_encode(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *codec_decode(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
