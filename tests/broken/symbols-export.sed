# also: two_static
s/^static void\* nksample_p_default_alloc/void* nksample_p_default_alloc/
