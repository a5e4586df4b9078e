s/^#include <time.h>/&\
#include <stdio.h>/
s/^    s->total = 0;/    puts("created");\
&/
