s/^#define NKSAMPLE_MOST.*/&\
#define SAMPLE_READY 1/
# also: macros_impl
