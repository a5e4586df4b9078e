# also: decl_then_impl
/^#endif \/\/ NETKIT_SAMPLE_INCLUDED/d
$a\
#endif
