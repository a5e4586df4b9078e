# also: decl_then_impl impl_twice two_units two_static no_loop unity cxx_caller
/^#endif \/\/ NETKIT_SAMPLE_INCLUDED/d
$a\
#endif
