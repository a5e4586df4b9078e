s/^    nksample_alloc_fn alloc_fn;/    nksample_alloc_fn realloc;/
s/s->alloc_fn/s->realloc/g
