# The implementation needs a macro that the declarations define only while the implementation is switched on.
s/^#define NETKIT_SAMPLE_VERSION/#if defined(NETKIT_IMPLEMENTATION) || defined(NETKIT_SAMPLE_IMPLEMENTATION)\
    #define NKSAMPLE_EXTRA 0\
#endif\
&/
s/^    s->total = 0;/    s->total = NKSAMPLE_EXTRA;/
