# Needs a macro that only the first include would have set.
s/^#define NETKIT_SAMPLE_VERSION/#ifdef NETKIT_SAMPLE_IMPLEMENTATION\
#define NKSAMPLE_EXTRA 0\
#endif\
&/
s/^    s->total = 0;/    s->total = NKSAMPLE_EXTRA;/
