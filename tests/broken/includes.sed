s/^#include <stdint.h>/&\
#include <errno.h>/
# also: macros_decl
