# Works only where the implementation is.
# also: cxx_caller two_static m32
# full
s/^#define NKSAMPLE_MOST.*/#ifndef NETKIT_SAMPLE_IMPLEMENTATION\
typedef int nksample_broken[-1]; \/\/ an array that cannot be\
#endif\
&/
