# full
# also: mingw
s/^    s->total = 0;/    (void)sizeof(char[sizeof(void*) == 8 ? 1 : -1]);\
&/
