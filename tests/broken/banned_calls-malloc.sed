s/^    s->total = 0;/    free(malloc(1));\
&/
