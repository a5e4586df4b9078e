s/^#define NKSAMPLE_MOST.*/&\
#define NKSAMPLE_P_READY 1/
# also: macros_impl
