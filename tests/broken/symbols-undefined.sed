# Declared, never defined.
# full
# also: decl_then_impl two_units two_static cxx_caller m32
s/^NETKIT_SAMPLE_API void nksample_destroy.*may be NULL/&\
NETKIT_SAMPLE_API void nksample_promise(int n); \/\/ nowhere/
