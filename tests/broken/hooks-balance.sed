s/^    if (s) s->alloc_fn(NULL, s, sizeof \*s, 0);/    if (s) s->total = 0;/
