/* SPDX-License-Identifier: MIT
 *
 * Contexts: what a run, or the pool itself, sends to each worker once. They lie in pinned blocks, one copy for all
 * workers: a packed block holds the descriptors of the large parts and parts[0].
 */
#include "pool/context.h"

#include <stdlib.h>

#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "state/pool.h"
#include "tercio.h"

/* Packs parts into pinned blocks. */
static int pack(tercio_pool *pool, const tercio_bytes *parts, size_t n_parts, tercio_block *block,
                tercio_block **blocks, size_t *n_blocks)
{
    tercio__assert_locked(pool);
    tercio__packed packed = {.magic = TERCIO__MAGIC, .head_size = parts[0].size, .n_blocks = n_parts - 1};
    tercio_block *large = NULL;
    size_t done = 0;
    int error;

    if (n_parts > 1 && (large = calloc(n_parts - 1, sizeof *large)) == NULL)
        return TERCIO_ENOMEM;
    for (; done < n_parts - 1; done++) {
        error = tercio__arena_put(pool->arena, parts[done + 1].data, parts[done + 1].size, TERCIO__BLOCK_PINNED,
                                  &large[done]);
        if (error)
            goto fail;
    }
    tercio_bytes pieces[] = {
        {&packed, sizeof packed}, {large, (n_parts - 1) * sizeof *large}, {parts[0].data, parts[0].size}};
    error = tercio__arena_putv(pool->arena, pieces, 3, TERCIO__BLOCK_PINNED, block);
    if (error)
        goto fail;
    *blocks = large;
    *n_blocks = n_parts - 1;
    return 0;
fail:
    while (done > 0)
        tercio__arena_free(pool->arena, &large[--done]);
    free(large);
    return error;
}

int tercio__pack_pieces(tercio_pool *pool, const tercio_bytes *pieces, size_t n, tercio_block *block)
{
    tercio__assert_locked(pool);
    tercio__packed packed = {.magic = TERCIO__MAGIC};
    tercio_bytes *all = malloc((n + 1) * sizeof *all);
    if (all == NULL)
        return TERCIO_ENOMEM;
    all[0] = (tercio_bytes){&packed, sizeof packed};
    for (size_t i = 0; i < n; i++) {
        all[i + 1] = pieces[i];
        packed.head_size += pieces[i].size;
    }
    int error = tercio__arena_putv(pool->arena, all, n + 1, TERCIO__BLOCK_PINNED, block);
    free(all);
    return error;
}

int tercio__context_new(tercio_pool *pool, const tercio_bytes *parts, size_t n_parts, tercio__context **out)
{
    tercio__assert_locked(pool);
    tercio__context *context = calloc(1, sizeof *context);
    if (context == NULL)
        return TERCIO_ENOMEM;
    int error = pack(pool, parts, n_parts, &context->block, &context->parts, &context->n_parts);
    if (error) {
        free(context);
        return error;
    }
    context->id = ++pool->next_context;
    context->refs = 1;
    *out = context;
    return 0;
}

void tercio__context_strand(tercio_pool *pool, tercio__context *context)
{
    tercio__assert_locked(pool);
    if (context == NULL || context->is_stranded)
        return;
    context->is_stranded = true;
    context->refs++;
    context->next = pool->stranded;
    pool->stranded = context;
}

void tercio__context_unref(tercio_pool *pool, tercio__context *context)
{
    if (context == NULL || --context->refs > 0)
        return;
    for (size_t i = 0; i < context->n_parts; i++)
        tercio__arena_free(pool->arena, &context->parts[i]);
    tercio__arena_free(pool->arena, &context->block);
    free(context->parts);
    free(context);
}

void tercio__context_forget(tercio__context *context)
{
    if (context == NULL || --context->refs > 0)
        return;
    free(context->parts);
    free(context);
}
