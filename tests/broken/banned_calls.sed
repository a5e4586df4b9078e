s/^    \*out = s;/    assert(s->total == 0);\
&/
# also: hooks
